"""Batches grow by doubling at load, as far as there is memory for them."""

from __future__ import annotations

import pytest
from inferd_engines.engine import EngineError
from inferd_server.models.batch_memory import MemoryGauge, rows_with_room

MIB = 1 << 20


class Process:
    """A process under a limit, whose runs take memory by their rows and may keep it."""

    def __init__(self, limit: int, a_row: int, *, keeps: bool = True) -> None:
        self.runs: list[int] = []
        self.limit = limit
        self.error: EngineError | None = None
        self._a_row = a_row
        self._keeps = keeps
        self._base = self._resident = self._peak = 100 * MIB
        self.gauge = MemoryGauge(
            lambda: self._resident, lambda: self._peak, lambda: self.limit - self._resident
        )

    def run(self, rows: int) -> None:
        if self.error is not None:
            raise self.error
        self.runs.append(rows)
        highest = self._base + self._a_row * rows
        assert highest <= self.limit, "killed"
        self._peak = max(self._peak, highest)
        if self._keeps:
            self._resident = max(self._resident, highest)


def test_a_model_of_small_rows_is_run_once() -> None:
    process = Process(600 * MIB, MIB)
    assert rows_with_room(process.run, 32, process.gauge) == 32
    assert process.runs == [1]


@pytest.mark.parametrize(("keeps", "rows"), [(True, 8), (False, 4)])
def test_rows_are_doubled_as_long_as_twice_as_many_leave_room(keeps: bool, rows: int) -> None:
    process = Process(600 * MIB, 32 * MIB, keeps=keeps)
    assert rows_with_room(process.run, 32, process.gauge) == rows
    assert process.runs == [size for size in (1, 2, 4, 8) if size <= rows]


@pytest.mark.parametrize("keeps", [True, False])
def test_a_model_for_which_there_is_just_no_room_is_never_run_with_more_than_a_row(
    keeps: bool,
) -> None:
    process = Process(600 * MIB, 300 * MIB, keeps=keeps)
    assert rows_with_room(process.run, 32, process.gauge) == 1
    assert process.runs == [1]


@pytest.mark.parametrize("most", [3, 5, 7, 33])
def test_the_limit_need_not_be_a_power_of_two(most: int) -> None:
    process = Process(4096 * MIB, 60 * MIB)
    assert rows_with_room(process.run, most, process.gauge) <= most
    assert max(process.runs) <= most


def test_where_nobody_knows_the_limit_nothing_is_run() -> None:
    process = Process(600 * MIB, 300 * MIB)
    gauge = MemoryGauge(headroom=lambda: None)
    assert rows_with_room(process.run, 32, gauge) == 32
    assert process.runs == []


def test_of_a_model_that_takes_no_such_input_nothing_is_known() -> None:
    process = Process(600 * MIB, MIB)
    process.error = EngineError("not these")
    assert rows_with_room(process.run, 32, process.gauge) == 32
    process.error = EngineError("the device is gone", fatal=True)
    with pytest.raises(EngineError, match="gone"):
        rows_with_room(process.run, 32, process.gauge)
