"""The tap hands samples over beside the requests' way, bounded, whatever consumers do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from inferd_server.monitoring.samples import SAMPLE_BYTES, Sample, Tap

from tests.fakes.clock import FakeClock

PATIENCE = 10.0


def sample(ident: str = "") -> Sample:
    return Sample("m", "1", ident, 0.0, {"x": np.zeros(2)}, {"y": np.ones(2)})


def tap(*consumers: Callable[[Sample], None], most: int = 2**20) -> Tap:
    return Tap(consumers, most, FakeClock())


def dropped(of: Tap) -> float:
    return of.counters().get(("inferd_samples_dropped_total", "m", 1), 0.0)


def test_every_consumer_gets_every_sample_in_order_on_one_other_thread() -> None:
    first, second = list[str](), list[str]()
    threads = set[int]()

    def look(to: list[str], one: Sample) -> None:
        threads.add(threading.get_ident())
        to.append(one.id)

    taps = tap(partial(look, first), partial(look, second))
    for index in range(20):
        taps.offer("m", 1, 10, partial(sample, str(index)))
    assert taps.flush(PATIENCE)
    assert first == second == [str(index) for index in range(20)]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert dropped(taps) == 0


def test_beyond_the_bound_samples_are_dropped_and_counted_and_nobody_waits() -> None:
    release, seen = threading.Event(), list[str]()

    def hold(one: Sample) -> None:
        release.wait()
        seen.append(one.id)

    taps = tap(hold, most=3 * (SAMPLE_BYTES + 100))
    for index in range(10):
        taps.offer("m", 1, 100, partial(sample, str(index)))
    assert dropped(taps) == 7
    release.set()
    assert taps.flush(PATIENCE)
    assert seen == ["0", "1", "2"]
    taps.offer("m", 1, 100, partial(sample, "later"))
    assert taps.flush(PATIENCE)
    assert seen[-1] == "later"


def test_samples_without_bytes_are_bounded_too() -> None:
    release = threading.Event()
    taps = tap(lambda _: bool(release.wait()) and None, most=4 * SAMPLE_BYTES)
    for _ in range(6):
        taps.offer("m", 1, 0, sample)
    assert dropped(taps) == 2
    release.set()
    assert taps.flush(PATIENCE)


def test_a_consumer_that_fails_keeps_nothing_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = list[Sample]()

    def fail(_: Sample) -> None:
        raise ValueError("no idea")

    taps = tap(fail, seen.append)
    with caplog.at_level(logging.ERROR):
        for _ in range(20):
            taps.offer("m", 1, 0, sample)
        assert taps.flush(PATIENCE)
    assert len(seen) == 20
    assert [record.getMessage() for record in caplog.records] == ["a sample could not be used"] * 5


def test_a_sample_that_cannot_be_read_is_counted_as_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def unreadable() -> Sample:
        raise ValueError("shrunk")

    seen = list[Sample]()
    taps = tap(seen.append)
    taps.offer("m", 1, 0, unreadable)
    taps.offer("m", 1, 0, sample)
    assert taps.flush(PATIENCE)
    assert (len(seen), dropped(taps)) == (1, 1)
    assert "a sample could not be read" in caplog.text
