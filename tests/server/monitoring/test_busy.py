"""How busy the engines are: right for several, for none, after a restart, whoever asks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from inferd_server.batching.inline import InlineLoop
from inferd_server.monitoring.busy import BusyLine, BusyWindow, Share, ratio
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge, without_gauges

from tests import models
from tests.fakes.clock import FakeClock
from tests.server.inference.held import occupy
from tests.server.serving import (
    PATIENCE,
    Running,
    infer_request,
    metrics_text,
    rows,
    running,
    running_fake,
    running_replicas,
    running_split,
)

Serve = Callable[[Path], AbstractContextManager[Running]]


def inline(folder: Path) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(time.monotonic), processes="inline")


def told(server: Running) -> float:
    """Return what /metrics tells."""
    (value,) = re.findall(
        r"^inferd_engine_busy_ratio (\S+)$", metrics_text(server.metrics_port), re.MULTILINE
    )
    return float(value)


class Busy:
    """Something whose busy seconds a test adds up."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, _: float) -> float:
        return self.seconds


class Watched:
    """A window over lines, and a clock that both go by."""

    def __init__(self, **lines: BusyLine) -> None:
        self.clock = FakeClock(100.0)
        self.lines = lines
        self.window = BusyWindow(lambda: self.lines, self.clock)
        self.window.look()

    def look(self, times: int = 1) -> float:
        for _ in range(times):
            self.clock.advance(1.0)
            self.window.look()
        return ratio(self.window.shares())


def test_nothing_is_busy_where_there_is_no_engine_and_before_the_first_look() -> None:
    window = BusyWindow(dict, FakeClock())
    assert ratio(window.shares()) == 0.0
    assert Watched().look(3) == 0.0


def test_only_the_last_seconds_count() -> None:
    engine = Busy()
    watched = Watched(m=BusyLine(1, [engine]))
    engine.seconds += 0.5
    assert watched.look() == 0.5
    assert watched.look() == 0.25
    assert watched.look(8) == pytest.approx(0.05)
    assert watched.look() == 0.0


def test_asking_changes_nothing() -> None:
    engine = Busy()
    watched = Watched(m=BusyLine(1, [engine]))
    engine.seconds += 0.5
    assert [watched.look(), *(ratio(watched.window.shares()) for _ in range(9))] == [0.5] * 10


def test_several_instances_are_busy_when_all_of_them_are() -> None:
    one, other = Busy(), Busy()
    watched = Watched(m=BusyLine(2, [one, other]))
    one.seconds += 1.0
    assert watched.look() == 0.5
    one.seconds += 1.0
    other.seconds += 1.0
    assert watched.look() == 0.75


def test_the_busiest_line_counts() -> None:
    full, idle = Busy(), Busy()
    watched = Watched(a=BusyLine(1, [full]), b=BusyLine(1, [idle]))
    full.seconds += 1.0
    assert watched.look() == 1.0


def test_models_that_take_turns_are_busy_together() -> None:
    engines = [Busy() for _ in range(4)]
    lines = {str(number): BusyLine(1, [engine]) for number, engine in enumerate(engines)}
    watched = Watched(**lines, turns=BusyLine(1, engines))
    for engine in engines:
        engine.seconds += 0.25
    assert watched.look() == 1.0


def test_a_model_that_is_new_or_gone_does_not_count_for_what_it_was_before() -> None:
    old, new = Busy(), Busy()
    watched = Watched(m=BusyLine(1, [old]))
    old.seconds += 0.5
    assert watched.look() == 0.5
    # A reload: the other engine has counted for itself before anybody looked at it.
    new.seconds = 77.0
    watched.lines = {"m": BusyLine(1, [new])}
    assert watched.look() == 0.5
    new.seconds += 1.0
    assert watched.look() == 0.75
    watched.lines = {}
    assert watched.look() == 0.0


def test_replicas_are_as_busy_as_they_are_together_and_workers_as_the_busiest() -> None:
    replicas = [
        MetricsSnapshot(busy={"m/1": Share(busy, 10.0), "inline": Share(0.0, 10.0)})
        for busy in (10.0, 0.0)
    ]
    assert ratio(merge(replicas).busy) == 0.5
    workers = [
        MetricsSnapshot(busy={"a/1": Share(10.0, 10.0), "GPU-1": Share(9.0, 10.0)}),
        MetricsSnapshot(busy={"b/1": Share(1.0, 10.0), "GPU-2": Share(1.0, 10.0)}),
    ]
    assert ratio(merge(workers).busy) == 1.0
    assert ratio(without_gauges(workers[0]).busy) == 0.0


def test_a_run_that_is_under_way_counts_though_nothing_has_ended(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        assert server.server is not None
        window = server.server.busy
        future = occupy(server, engine)
        window.look()
        assert window.shares()["fake/1"].busy == 0.0
        window.look()
        busy = window.shares()["fake/1"].busy
        assert busy > 0.0
        window.look()
        assert window.shares()["fake/1"].busy > busy
        assert 0.0 < told(server) <= 1.0
        engine.release()
        future.result()
        # From its answer on, nothing runs; the first look still saw a part of it.
        window.look()
        busy = window.shares()["fake/1"].busy
        window.look()
        assert window.shares()["fake/1"].busy == busy


@pytest.mark.parametrize("serve", [inline, running_split, running_replicas])
def test_processes_tell_how_busy_they_are_by_themselves(serve: Serve, tmp_path: Path) -> None:
    models.repository(tmp_path, {"m": models.scale(2.0)})
    request = infer_request("m", rows(1.0))
    with serve(tmp_path) as server:
        assert 0.0 <= told(server) < 1.0
        end = time.monotonic() + PATIENCE
        while not told(server):
            server.infer(request)
            assert time.monotonic() < end
        assert told(server) <= 1.0
