"""Shares of the engines."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from inferd_engines.engine import Overlapping
from inferd_server.scheduler.turns import Member, Turns
from inferd_server.worker.sharing import shared

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine, OverlappingEngine

WITHIN = 30.0
ROW = {"INPUT0": np.ones((1, 4), np.float32)}


def order(turns: Turns, members: dict[str, Member], runs: int, seconds: float = 1.0) -> list[str]:
    """Return who ran, when all of them always want to."""
    ran: list[str] = []
    everybody = threading.Barrier(len(members) + 1)
    ready = threading.Event()

    def live(name: str) -> None:
        everybody.wait(WITHIN)
        while True:
            turns.take(members[name])
            if len(ran) == runs:
                turns.give_back(members[name], 0.0)
                return
            ready.wait(WITHIN)
            ran.append(name)
            # The others are here again before this turn ends.
            while len(turns._waiting) < len(members) - 1 and len(ran) < runs:
                pass
            turns.give_back(members[name], seconds)

    with ThreadPoolExecutor(len(members)) as executor:
        living = [executor.submit(live, name) for name in members]
        everybody.wait(WITHIN)
        ready.set()
        for one in living:
            one.result(WITHIN)
    return ran


def test_each_gets_its_share_by_weight() -> None:
    ran = order(Turns(1), {"heavy": Member(3.0), "light": Member(1.0)}, 40)
    counted = Counter(ran)
    assert abs(counted["heavy"] - 30) <= 1
    # Nobody waits for long: of any five in a row, one is the light one's.
    assert all("light" in ran[place : place + 5] for place in range(1, 35))


def test_time_is_shared_and_not_the_number_of_runs() -> None:
    turns = Turns(1)
    slow, quick = Member(1.0), Member(1.0)
    turns.take(slow)
    turns.give_back(slow, 10.0)
    for _ in range(9):
        turns.take(quick)
        turns.give_back(quick, 1.0)
    assert (slow.spent, quick.spent) == (10.0, 9.0)


def test_who_did_nothing_for_a_while_has_saved_nothing() -> None:
    turns = Turns(1)
    busy, sleeper = Member(1.0), Member(1.0)
    for _ in range(5):
        turns.take(busy)
        turns.give_back(busy, 1.0)
    turns.take(sleeper)
    assert sleeper.spent == 4.0
    turns.give_back(sleeper, 1.0)


def test_without_a_bound_nobody_waits() -> None:
    turns = Turns(0)
    members = [Member(1.0) for _ in range(3)]
    for member in members:
        turns.take(member)
    assert not turns.contended(members[0])
    assert shared(FakeEngine(), turns, members[0], FakeClock()).name == "fake/numpy"
    engine = FakeEngine()
    assert shared(engine, turns, members[0], FakeClock()) is engine


def test_no_more_models_run_at_a_time_than_may() -> None:
    turns = Turns(1)
    engines = [FakeEngine(), FakeEngine()]
    sharing = [shared(engine, turns, Member(1.0), FakeClock()) for engine in engines]
    engines[0].hold()
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(sharing[0].run, ROW, {}, 1)
        assert engines[0].running.wait(WITHIN)
        second = executor.submit(sharing[1].run, ROW, {}, 1)
        while not turns._waiting:
            pass
        assert engines[1].batches == []
        engines[0].release()
        first.result(WITHIN)
        second.result(WITHIN)
    assert len(engines[1].batches) == 1


def test_a_run_that_fails_gives_its_turn_back() -> None:
    turns, member = Turns(1), Member(1.0)
    engine = FakeEngine()
    engine.fail(ValueError("no"))
    sharing = shared(engine, turns, member, FakeClock())
    with pytest.raises(ValueError, match="no"):
        sharing.run(ROW, {}, 1)
    assert member.running == 0


def test_two_runs_in_halves_hold_one_turn_and_their_time_counts_once() -> None:
    clock = FakeClock()
    turns, member, other = Turns(1), Member(2.0), Member(1.0)
    sharing = shared(OverlappingEngine(), turns, member, clock)
    assert isinstance(sharing, Overlapping)
    first = sharing.begin(ROW, 1)
    second = sharing.begin(ROW, 1)
    with ThreadPoolExecutor(1) as executor:
        waiting = executor.submit(turns.take, other)
        while not turns._waiting:
            pass
        assert turns.contended(member)
        clock.advance(4.0)
        sharing.finish(first, {})
        clock.advance(2.0)
        assert not waiting.done()
        sharing.finish(second, {})
        waiting.result(WITHIN)
    assert member.spent == 3.0
    assert member.running == 0
