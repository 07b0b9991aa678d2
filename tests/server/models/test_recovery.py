"""When a model that lost an engine is loaded again."""

from __future__ import annotations

from collections.abc import Callable

from inferd_engines.engine import EngineError
from inferd_server.errors import InferdError, ModelNotFound, ModelNotReady, ShuttingDown
from inferd_server.models.layout import FILES_ABSENT
from inferd_server.models.recovery import (
    FORGIVEN_S,
    LIMIT,
    LONGEST_S,
    Recovery,
    reload_delay,
)

from tests.fakes.clock import FakeClock
from tests.server.callers import rows_of
from tests.server.models.bench import Bench

GONE = EngineError("the device is gone", fatal=True)


class Loads:
    """Remembers what was to be done later, and what was loaded."""

    def __init__(self) -> None:
        self.clock = FakeClock(1.0)
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.loaded: list[str] = []
        self.given_up: list[str] = []
        self.error: InferdError | None = None
        self.recovery = Recovery(
            self.load,
            lambda seconds, task: self.later.append((seconds, task)),
            self.clock,
            self.given_up.append,
        )

    def load(self, name: str) -> None:
        self.loaded.append(name)
        if self.error is not None:
            raise self.error

    def next(self) -> float:
        """Do what comes next, and return how long it would have taken."""
        seconds, task = self.later.pop(0)
        task()
        return seconds


def test_a_lost_model_is_loaded_again_and_serves(bench: Bench) -> None:
    bench.add("m", 1, yaml="max_batch_size: 1")
    bench.repository.load("m")
    handle = bench.repository.resolve("m", "")
    bench.engines.last.fail(GONE)
    bench.submit(1.0).wait()
    bench.await_changes(3)
    later: list[Callable[[], None]] = []
    given_up: list[str] = []
    recovery = Recovery(
        bench.repository.load, lambda _, task: later.append(task), FakeClock(), given_up.append
    )
    recovery.lost(handle)
    later[0]()
    assert given_up == []
    assert bench.submit(1.0).wait().output == rows_of(2.0)


def test_a_model_that_cannot_be_loaded_is_tried_ever_later_and_then_left(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    loads = Loads()
    loads.error = ModelNotReady("no memory")
    loads.recovery.lost(bench.repository.resolve("m", ""))
    delays = []
    while loads.later:
        delays.append(loads.next())
    assert delays == [reload_delay(losses) for losses in range(1, LIMIT + 1)]
    assert delays == sorted(delays)
    assert loads.loaded == ["m"] * LIMIT
    assert loads.given_up == ["m"]


def test_losses_long_ago_are_forgotten(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    loads, handle = Loads(), bench.repository.resolve("m", "")
    for _ in range(LIMIT + 1):
        loads.recovery.lost(handle)
    assert len(loads.later) == LIMIT
    loads.clock.advance(FORGIVEN_S + 1)
    loads.recovery.lost(handle)
    assert loads.later[-1][0] == reload_delay(1)


def test_what_is_missing_is_looked_for_ever_later_and_without_an_end() -> None:
    loads = Loads()
    loads.error = ModelNotReady("no such file", reason=FILES_ABSENT)
    loads.recovery.missing("m")
    delays = [loads.next() for _ in range(5 * LIMIT)]
    assert delays[:3] == [0.1, 0.2, 0.4]
    assert delays == sorted(delays)
    assert delays[-1] == LONGEST_S
    # What comes then, such as files that are half there, is no reason to end either.
    loads.error = ModelNotReady("damaged")
    assert [loads.next() for _ in range(LIMIT + 1)] == [LONGEST_S] * (LIMIT + 1)
    loads.error = None
    loads.next()
    assert loads.later == []
    assert loads.given_up == []


def test_a_lost_model_whose_files_are_gone_is_waited_for(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    loads = Loads()
    loads.error = ModelNotFound("not in the repository", reason=FILES_ABSENT)
    loads.recovery.lost(bench.repository.resolve("m", ""))
    for _ in range(3 * LIMIT):
        loads.next()
    assert loads.given_up == []
    loads.error = None
    loads.next()
    loads.error = ModelNotReady("no such file", reason=FILES_ABSENT)
    loads.recovery.missing("m")
    assert loads.later[0][0] == reload_delay(1)


def test_what_is_gone_or_going_is_not_loaded_again(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    for error in (ShuttingDown("the server is shutting down"), ModelNotFound("gone")):
        loads = Loads()
        loads.error = error
        loads.recovery.lost(bench.repository.resolve("m", ""))
        loads.next()
        assert loads.later == []
