"""Shares of the engines."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from inferd_server.scheduler.decision import Decision
from inferd_server.scheduler.fair_share import FairShare, Member, Turn
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.slot import Arena
from inferd_server.worker.runner import Runner

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine, OverlappingEngine
from tests.server.callers import Caller, job_of, rows_of

WITHIN = 30.0


def order(
    share: FairShare, members: dict[str, Member], runs: int, seconds: float = 1.0
) -> list[str]:
    """Return who ran, when all of them always want to."""
    ran: list[str] = []
    everybody = threading.Barrier(len(members) + 1)
    ready = threading.Event()

    def live(name: str) -> None:
        everybody.wait(WITHIN)
        while True:
            share.take(members[name])
            if len(ran) == runs:
                share.give_back(members[name], 0.0)
                return
            ready.wait(WITHIN)
            ran.append(name)
            # The others are here again before this turn ends.
            while len(share._waiting) < len(members) - 1 and len(ran) < runs:
                pass
            share.give_back(members[name], seconds)

    with ThreadPoolExecutor(len(members)) as executor:
        living = [executor.submit(live, name) for name in members]
        everybody.wait(WITHIN)
        ready.set()
        for one in living:
            one.result(WITHIN)
    return ran


def test_each_gets_its_share_by_weight() -> None:
    ran = order(FairShare(1), {"heavy": Member(3.0), "light": Member(1.0)}, 40)
    counted = Counter(ran)
    assert abs(counted["heavy"] - 30) <= 1
    # Nobody waits for long: of any five in a row, one is the light one's.
    assert all("light" in ran[place : place + 5] for place in range(1, 35))


def test_time_is_shared_and_not_the_number_of_runs() -> None:
    share = FairShare(1)
    slow, quick = Member(1.0), Member(1.0)
    share.take(slow)
    share.give_back(slow, 10.0)
    for _ in range(9):
        share.take(quick)
        share.give_back(quick, 1.0)
    assert (slow.spent, quick.spent) == (10.0, 9.0)


def test_who_did_nothing_for_a_while_has_saved_nothing() -> None:
    share = FairShare(1)
    busy, sleeper = Member(1.0), Member(1.0)
    for _ in range(5):
        share.take(busy)
        share.give_back(busy, 1.0)
    share.take(sleeper)
    assert sleeper.spent == 4.0
    share.give_back(sleeper, 1.0)


def runner_of(
    engine: FakeEngine, share: FairShare, member: Member, clock: FakeClock
) -> Runner[Job]:
    turn = Turn(share, member, clock)
    return Runner(engine, True, lambda _: None, clock, turn=turn)


def batch_of(value: float, caller: Caller | None = None) -> Decision[Job]:
    return Decision(run=(job_of(Arena(4, 1000), [value], caller),))


def test_without_a_bound_nobody_waits() -> None:
    share = FairShare(0)
    members = [Member(1.0) for _ in range(3)]
    for member in members:
        share.take(member)
    assert not share.contended(members[0])


def test_no_more_models_run_at_a_time_than_may() -> None:
    share = FairShare(1)
    engines = [FakeEngine(), FakeEngine()]
    runners = [runner_of(engine, share, Member(1.0), FakeClock()) for engine in engines]
    engines[0].hold()
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(runners[0], batch_of(1.0))
        assert engines[0].running.wait(WITHIN)
        second = executor.submit(runners[1], batch_of(2.0))
        while not share._waiting:
            pass
        assert engines[1].batches == []
        engines[0].release()
        first.result(WITHIN)
        second.result(WITHIN)
    assert len(engines[1].batches) == 1


@pytest.mark.parametrize("engine", [FakeEngine(), OverlappingEngine()])
def test_a_run_that_fails_gives_its_turn_back(engine: FakeEngine) -> None:
    share, member, caller = FairShare(1), Member(1.0), Caller()
    runner = runner_of(engine, share, member, FakeClock())
    engine.fail(ValueError("no"))
    runner(batch_of(1.0, caller))
    assert caller.errors
    assert member.running == 0


def test_a_half_that_fails_gives_its_turn_back_and_so_does_a_batch_that_is_abandoned() -> None:
    share, member, caller = FairShare(1), Member(1.0), Caller()
    engine = OverlappingEngine()
    runner = runner_of(engine, share, member, FakeClock())
    engine.refusals.append(ValueError("no"))
    assert runner.begin(batch_of(1.0, caller)) is None
    assert caller.errors
    assert member.running == 0
    batch = runner.begin(batch_of(2.0))
    assert batch is not None
    runner.abandon(batch)
    assert member.running == 0


def test_two_runs_in_halves_hold_one_turn_and_their_time_counts_once() -> None:
    clock = FakeClock()
    share, member, other = FairShare(1), Member(2.0), Member(1.0)
    runner = runner_of(OverlappingEngine(), share, member, clock)
    callers = [Caller(), Caller()]
    first = runner.begin(batch_of(1.0, callers[0]))
    second = runner.begin(batch_of(2.0, callers[1]))
    assert first is not None
    assert second is not None
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(share.take, other)
        while not share._waiting:
            pass
        assert share.contended(member)
        clock.advance(4.0)
        runner.finish(first)
        clock.advance(2.0)
        assert not waiting.done()
        runner.finish(second)
        waiting.result(WITHIN)
    assert [caller.output for caller in callers] == [rows_of(2.0), rows_of(4.0)]
    assert member.spent == 3.0
    assert member.running == 0
