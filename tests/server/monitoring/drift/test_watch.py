"""The watch counts samples by their reference, learns one where it may, and keeps to its share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inferd_server.monitoring.drift.reference import Hints, make_reference
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.watch import (
    HELD_BYTES,
    LEARNING_BYTES,
    DriftWatch,
    Watched,
    rest,
)
from inferd_server.monitoring.drift.windows import DriftCounts

from tests.fakes.clock import FakeClock

from .samples import sample, table

KEY = ("m", 1, "k")


class Bench:
    """A watch of one version, over a folder."""

    def __init__(self, folder: Path | None = None, learn_rows: int = 0, share: float = 1.0) -> None:
        self.clock = FakeClock()
        self.references = References(folder)
        self.rng = np.random.default_rng(5)
        self.how: Watched | None = Watched("k", Hints(), learn_rows)
        self.watch = DriftWatch(lambda *_: self.how, self.references, share, self.clock)

    def reference(self) -> None:
        made = make_reference([table(self.rng, 400)], Hints(), "a test")
        self.references.agree("k", made)

    def send(self, requests: int, rows: int = 1) -> None:
        for _ in range(requests):
            batch = table(self.rng, rows)
            self.watch(sample(dict(batch.inputs), dict(batch.outputs)))

    @property
    def counted(self) -> DriftCounts:
        return self.watch.counts()[KEY]


def test_every_row_of_a_sample_is_counted_once_whether_or_not_others_came_with_it() -> None:
    bench = Bench()
    bench.reference()
    bench.send(5)
    assert bench.counted.rows == 5
    bench.send(70)
    bench.send(3, rows=40)
    counted = bench.counted
    assert counted.rows == 195
    assert {sum(feature) for feature in counted.counts} == {195}


def test_a_version_that_is_not_watched_or_has_no_reference_is_not_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = Bench()
    bench.send(40)
    assert bench.watch.counts() == {}
    assert caplog.text.count("drift is not watched") == 1
    bench.how = None
    bench.send(40)
    assert bench.watch.counts() == {}


def test_a_reference_is_learned_from_the_first_rows_and_counting_begins_behind_them(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, learn_rows=150)
    bench.send(149)
    assert bench.watch.counts() == {}
    bench.send(1)
    learned = bench.references.find("k")
    assert learned is not None
    assert (learned.rows, learned.source) == (150, "the first 150 rows")
    bench.send(10)
    assert bench.counted.rows == 10


def test_the_next_start_goes_on_with_what_was_learned(tmp_path: Path) -> None:
    first = Bench(tmp_path, learn_rows=150)
    first.send(150)
    again = Bench(tmp_path, learn_rows=150)
    again.send(10)
    assert again.counted.rows == 10


def test_another_process_that_learned_first_is_followed(tmp_path: Path) -> None:
    first, second = Bench(tmp_path, learn_rows=150), Bench(tmp_path, learn_rows=150)
    second.rng = np.random.default_rng(99)
    second.send(149)
    first.send(150)
    second.send(2)
    assert second.references.find("k") == first.references.find("k")
    assert second.counted.rows == 1


def test_what_nothing_can_be_learned_of_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(learn_rows=120)
    for _ in range(300):
        bench.watch(sample({"x": np.zeros((1, 2), np.complex64)}))
    assert bench.watch.counts() == {}
    assert caplog.text.count("drift is not watched") == 1


def test_a_new_version_of_the_reference_begins_at_zero() -> None:
    bench = Bench()
    bench.reference()
    bench.send(40)
    made = make_reference([table(bench.rng, 400)], Hints(), "another")
    bench.references.agree("new", made)
    bench.how = Watched("new", Hints(), 0)
    bench.send(7)
    assert {key: found.rows for key, found in bench.watch.counts().items()} == {("m", 1, "new"): 7}


def test_what_was_counted_for_a_version_that_is_gone_is_forgotten() -> None:
    bench = Bench()
    bench.reference()
    bench.send(40)
    bench.watch.retain([("m", 1), ("m", 2)])
    assert bench.counted.rows == 40
    bench.watch.retain([("m", 2)])
    assert bench.watch.counts() == {}


@pytest.mark.parametrize(
    "inputs",
    [
        {"x": np.full((3, 2), np.nan, np.float32)},
        {"x": np.array([[b"text", b""]] * 3, object)},
        {"x": np.empty((3, 0), np.float32)},
        {"x": np.empty((0, 2), np.float32)},
        {"x": np.full((3, 2), np.finfo(np.float64).max)},
        {"x": np.zeros((3, 7, 9), np.float32)},
        {"x": np.float32(1)},
        {"z": np.zeros((3, 2), np.float32)},
        {},
    ],
    ids=["nan", "text", "no columns", "no rows", "huge", "other shape", "scalar", "other", "none"],
)
def test_strange_samples_are_survived_and_others_counted_on(
    inputs: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench()
    bench.reference()
    bench.watch(sample(inputs))
    bench.send(50)
    assert bench.counted.rows >= 50
    assert "could not be measured" not in caplog.text


def test_few_large_rows_do_not_wait_for_others_and_learning_from_them_ends() -> None:
    bench = Bench(learn_rows=100_000)
    large = np.zeros((1, 2**17), np.float32)
    for _ in range(LEARNING_BYTES // large.nbytes):
        bench.watch(sample({"x": large}))
    learned = bench.references.find("k")
    assert learned is not None
    assert learned.rows == LEARNING_BYTES // large.nbytes
    text = np.array([b"x" * HELD_BYTES], object)
    counting = bench.watch._versions["m", 1]
    bench.watch(sample({"t": text}))
    assert counting.held == []


def test_one_value_for_all_rows_does_not_keep_the_rows_from_being_counted() -> None:
    bench = Bench()
    bench.reference()
    batch = table(bench.rng, 5)
    shared = {"temperature": np.float32(0.5) * np.ones(1, np.float32), "mode": np.array(3)}
    bench.watch(sample({**batch.inputs, **shared}, dict(batch.outputs)))
    assert bench.counted.rows == 5


def test_work_is_followed_by_rest_so_that_the_share_of_a_core_is_kept() -> None:
    assert rest(1.0, 0.02) == pytest.approx(49.0)
    assert rest(1.0, 1.0) == 0.0
    bench = Bench(share=0.25)
    bench.reference()
    looked = 0

    def take(*_: object) -> None:
        nonlocal looked
        looked += 1
        bench.clock.advance(1.0)

    bench.watch._take = take  # type: ignore[method-assign]
    for _ in range(400):
        bench.send(1)
        bench.clock.advance(0.1)
    assert looked / bench.clock() == pytest.approx(0.25, abs=0.02)
    passed_over = bench.watch.counters()["inferd_drift_passed_over_total", "m", 1]
    assert passed_over == 400 - looked
