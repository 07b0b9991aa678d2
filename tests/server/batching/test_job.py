"""A job is answered once, and gives its rows back once."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_server.batching.slots import Arena
from inferd_server.errors import Cancelled, EngineFailure, InferdError
from inferd_server.monitoring.phases import Execution, Phases

from tests.server.callers import ROW, Caller, job_of, placed

PHASES = Phases(0.0, Execution(1, 0.0, 0.0, 0.0))


class Broken(Caller):
    """Cannot be answered."""

    def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        raise RuntimeError("gone")

    def fail(self, error: InferdError) -> None:
        super().fail(error)
        raise RuntimeError("gone")


def test_the_first_answer_counts() -> None:
    arena, caller = Arena(4, 1000), Caller()
    job = job_of(arena, [1.0], caller)
    job.fail(Cancelled("first"))
    job.finish({}, PHASES)
    job.fail(Cancelled("second"))
    assert str(caller.error) == "first"


@pytest.mark.parametrize("end", ["finish", "fail"])
def test_an_answer_frees_the_rows(end: str) -> None:
    arena = Arena(4, 1000)
    job = job_of(arena, [1.0, 2.0])
    assert arena.rows == 2
    job.finish({}, PHASES) if end == "finish" else job.fail(Cancelled("x"))
    assert arena.rows == 0


def test_the_rows_are_held_until_the_answer_is_made() -> None:
    arena = Arena(4, 1000)
    held: list[int] = []
    slot = arena.reserve(ROW, 3, 48)
    assert slot is not None

    class Watching(Caller):
        def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
            held.append(arena.rows)

    job = placed(slot, "a", 0.0, None, Watching())
    job.finish({}, PHASES)
    assert held == [3]


def test_whoever_has_an_answer_finds_no_row_of_its_batch_counted_and_all_of_them_held() -> None:
    arena = Arena(4, 1000)
    counted: list[int] = []
    held: list[object] = []

    class Asking(Caller):
        def finish(self, outputs: Mapping[str, Array], phases: Phases) -> None:
            counted.append(arena.rows)
            held.append([job.slot.freed for job in jobs])

    jobs = [job_of(arena, [1.0], Asking()), job_of(arena, [2.0], Asking())]
    jobs[0].sender.finish(jobs, {"y": np.zeros((2, 1))}, 0.0, PHASES.run)
    assert counted == [0, 0]
    assert held == [[False, False], [False, False]]
    assert all(job.slot.freed for job in jobs)


def test_an_answer_that_cannot_be_sent_becomes_an_error_and_reaches_nobody_else() -> None:
    arena, caller = Arena(4, 1000), Broken()
    job_of(arena, [1.0], caller).finish({}, PHASES)
    assert isinstance(caller.error, EngineFailure)
    assert arena.rows == 0


def test_an_error_that_cannot_be_sent_reaches_nobody_else() -> None:
    arena, caller = Arena(4, 1000), Broken()
    job_of(arena, [1.0], caller).fail(Cancelled("x"))
    assert arena.rows == 0


def test_a_race_of_answers_has_one_winner() -> None:
    arena = Arena(400, 10**6)
    pairs = [(caller := Caller(), job_of(arena, [1.0], caller)) for _ in range(200)]
    start = threading.Barrier(4)

    def answer(finish: bool) -> None:
        start.wait()
        for _, job in pairs:
            job.finish({}, PHASES) if finish else job.fail(Cancelled("x"))

    threads = [threading.Thread(target=answer, args=(n % 2 == 0,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [caller.answers for caller, _ in pairs] == [1] * 200
    assert arena.rows == 0
