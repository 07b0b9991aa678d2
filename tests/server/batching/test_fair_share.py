"""Shares of the engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.fair_share import KEPT_S, FairShare, Member, Turn
from inferd_server.batching.instance import Instance, Work
from inferd_server.batching.job import Job
from inferd_server.batching.queue import BatchQueue
from inferd_server.batching.runner import Runner
from inferd_server.batching.slots import Arena
from inferd_server.errors import Cancelled, DeadlinePassed
from inferd_server.inference.infer_request import cancel
from inferd_server.monitoring.phases import Execution

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine, OverlappingEngine
from tests.server.callers import Caller, job_of, rows_of

WITHIN = 30.0
NEVER = float("inf")


@dataclass
class Load:
    """A model whose runs take so long, and that wants to run again so long after each."""

    seconds: float
    weight: float = 1.0
    think: float = 0.0
    """Until its callers have sent again; 0: more requests wait all the time."""
    comes: float = 0.0
    """When it wants to run next, in seconds."""
    ran: float = 0.0
    member: Member = field(init=False)

    def __post_init__(self) -> None:
        self.member = Member(self.weight)


class Simulation:
    """Models that take turns on one engine, by a clock that jumps from one event to the next."""

    def __init__(self, *loads: Load) -> None:
        self.clock = FakeClock()
        self.share = FairShare(1, self.clock)
        self.loads = loads

    def run(self, until: float) -> None:
        while self.clock() < until:
            self._come()
            ready = [one for one in self.loads if one.member.waiting and self._may(one)]
            if ready:
                self._turn(ready[0])
            else:
                self.clock.advance(min(self._events()) - self.clock())

    def _come(self) -> None:
        for one in self.loads:
            if one.comes <= self.clock():
                self.share.come(one.member)
                one.comes = NEVER

    def _may(self, one: Load) -> bool:
        return self.share.may_run(one.member, self.clock())

    def _turn(self, one: Load) -> None:
        self.share.begin(one.member)
        begun, end = self.clock(), self.clock() + one.seconds
        # Others come while it runs.
        while (event := min(other.comes for other in self.loads)) < end:
            self.clock.advance(max(0.0, event - self.clock()))
            self._come()
        self.clock.advance(end - self.clock())
        one.ran += self.clock() - begun
        one.comes = self.clock() + one.think
        self.share.give_back(one.member, one.seconds, more=not one.think)

    def _events(self) -> Iterator[float]:
        for one in self.loads:
            yield one.comes
            if one.member.kept > self.clock():
                yield one.member.kept


@pytest.mark.parametrize("think", [0.0, 0.001, 0.004])
@pytest.mark.parametrize("weights", [(10.0, 1.0), (5.0, 1.0), (1.0, 1.0), (1.0, 5.0), (1.0, 10.0)])
@pytest.mark.parametrize("seconds", [(0.1, 0.01), (0.01, 0.01), (0.01, 0.1), (0.1, 0.1)])
def test_engine_time_is_shared_by_weight_whatever_a_run_takes(
    seconds: tuple[float, float], weights: tuple[float, float], think: float
) -> None:
    first, second = (Load(s, w, think) for s, w in zip(seconds, weights, strict=True))
    Simulation(first, second).run(60.0)
    found, wanted = first.ran / second.ran, weights[0] / weights[1]
    assert wanted * 0.9 <= found <= wanted * 1.1
    # To keep a place costs no more than callers take to come back.
    assert first.ran + second.ran >= 60.0 * min(seconds) / (min(seconds) + think) * 0.95


def test_three_models_share_by_weight() -> None:
    loads = [Load(0.1, 4.0), Load(0.01, 2.0, 0.002), Load(0.03, 1.0)]
    Simulation(*loads).run(60.0)
    total = sum(one.ran for one in loads)
    for one in loads:
        assert one.ran / total == pytest.approx(one.weight / 7, rel=0.1)


def test_who_comes_back_after_a_while_has_saved_nothing() -> None:
    busy, sleeper = Load(0.1), Load(0.01, comes=30.0)
    simulation = Simulation(busy, sleeper)
    simulation.run(30.0)
    assert busy.ran == pytest.approx(30.0)
    simulation.run(31.0)
    # Half of the second, and not all of it.
    assert sleeper.ran == pytest.approx(0.5, abs=0.1)


def test_a_place_is_not_kept_for_who_seldom_comes() -> None:
    busy, seldom = Load(0.01, think=0.001), Load(0.01, weight=10.0, think=0.1)
    Simulation(busy, seldom).run(60.0)
    lost = 60.0 - busy.ran - seldom.ran
    assert seldom.ran / 0.01 >= 60.0 / (0.1 + 0.01 + 0.011) * 0.9
    # What the busy one's own callers take to come back, and next to nothing for the other one.
    assert lost <= 60.0 * 0.001 / 0.011 + KEPT_S * 3


def waiting(share: FairShare) -> int:
    """Return how many wait for a turn."""
    return sum(member.waiting for member in list(share._line))


def runner_of(
    engine: FakeEngine, share: FairShare, member: Member, clock: FakeClock
) -> Runner[Job]:
    turn = Turn(share, member, clock)
    return Runner(engine, True, lambda _: None, clock, turn=turn)


def batch_of(value: float, caller: Caller | None = None) -> Decision[Job]:
    return Decision(run=(job_of(Arena(4, 1000), [value], caller),))


def test_no_more_models_run_at_a_time_than_may() -> None:
    share = FairShare(1, FakeClock())
    engines = [FakeEngine(), FakeEngine()]
    runners = [runner_of(engine, share, Member(1.0), FakeClock()) for engine in engines]
    engines[0].hold()
    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(runners[0], batch_of(1.0))
        assert engines[0].running.wait(WITHIN)
        second = executor.submit(runners[1], batch_of(2.0))
        while not waiting(share):
            pass
        assert engines[1].batches == []
        engines[0].release()
        first.result(WITHIN)
        second.result(WITHIN)
    assert len(engines[1].batches) == 1


@pytest.mark.parametrize("engine", [FakeEngine(), OverlappingEngine()])
def test_a_run_that_fails_gives_its_turn_back(engine: FakeEngine) -> None:
    share, member, caller = FairShare(1, FakeClock()), Member(1.0), Caller()
    runner = runner_of(engine, share, member, FakeClock())
    engine.fail(ValueError("no"))
    runner(batch_of(1.0, caller))
    assert caller.errors
    assert member.running == 0


def test_a_half_that_fails_gives_its_turn_back_and_so_does_a_batch_that_is_abandoned() -> None:
    share, member, caller = FairShare(1, FakeClock()), Member(1.0), Caller()
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
    share, member, other = FairShare(1, clock), Member(2.0), Member(1.0)
    runner = runner_of(OverlappingEngine(), share, member, clock)
    callers = [Caller(), Caller()]
    first = runner.begin(batch_of(1.0, callers[0]))
    second = runner.begin(batch_of(2.0, callers[1]))
    assert first is not None
    assert second is not None
    with ThreadPoolExecutor(1) as executor:
        taking = executor.submit(share.take, other)
        while not waiting(share):
            pass
        assert share.contended(member)
        clock.advance(4.0)
        runner.finish(first)
        clock.advance(2.0)
        assert not taking.done()
        runner.finish(second)
        taking.result(WITHIN)
    assert [caller.output for caller in callers] == [rows_of(2.0), rows_of(4.0)]
    assert member.spent == 3.0
    assert member.running == 0


class Model:
    """A model on a thread of its own, whose engine can be held."""

    def __init__(self, share: FairShare, clock: FakeClock) -> None:
        self.engine = FakeEngine()
        self.runs: list[Execution] = []
        self.queue: BatchQueue[Job] = BatchQueue(BatchBounds(4), clock)
        self.arena = Arena(8, 1 << 12)
        turn = Turn(share, Member(1.0), clock, lambda: self.queue.rows > 0)
        run: Runner[Job] = Runner(self.engine, True, self.runs.append, clock, turn=turn)
        work = Work(self.queue, run, turn=turn)
        self.instance = Instance("model", lambda: self.engine, lambda _: work, lambda _: None)
        self.instance.start().result(WITHIN)

    def send(
        self, value: float, arrived: float, deadline: float | None = None
    ) -> tuple[Caller, Job]:
        caller = Caller()
        job = job_of(self.arena, [value], caller, arrived=arrived, deadline=deadline)
        assert self.queue.submit(job)
        return caller, job

    def end(self) -> None:
        self.engine.release()
        self.queue.close()
        assert self.instance.join(WITHIN)
        assert self.arena.rows == 0


class Two:
    """Two models that take turns; the first one runs until it is released."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.share = FairShare(1, self.clock)
        self.first, self.second = Model(self.share, self.clock), Model(self.share, self.clock)
        self.first.engine.hold()
        self.busy, _ = self.first.send(1.0, 0.0)
        assert self.first.engine.running.wait(WITHIN)

    def await_waiting(self) -> None:
        """Return once the second one waits for its turn."""
        while not waiting(self.share):
            pass

    def end(self) -> None:
        self.first.end()
        self.second.end()


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.end()


def test_to_wait_for_a_turn_is_to_wait_in_the_queue_and_no_part_of_the_run(two: Two) -> None:
    caller, _ = two.second.send(2.0, two.clock())
    two.await_waiting()
    two.clock.advance(3.0)
    two.first.engine.release()
    assert caller.wait().output == rows_of(4.0)
    (phases,) = caller.phases
    assert (phases.queue, phases.run.compute, phases.run.gather) == (3.0, 0.0, 0.0)
    assert [run.compute for run in two.second.runs] == [0.0]


def test_who_expires_or_leaves_before_its_turn_is_not_run(two: Two) -> None:
    late, _ = two.second.send(2.0, two.clock(), two.clock() + 1.0)
    two.await_waiting()
    gone, job = two.second.send(3.0, two.clock())
    cancel(two.second.queue, job)
    assert isinstance(gone.wait().error, Cancelled)
    two.clock.advance(2.0)
    two.first.engine.release()
    assert isinstance(late.wait().error, DeadlinePassed)
    assert two.second.engine.batches == []
    # The turn went back.
    assert two.first.send(5.0, two.clock())[0].wait().output == rows_of(10.0)


def test_what_comes_while_a_model_waits_for_its_turn_joins_the_batch(two: Two) -> None:
    callers = [two.second.send(2.0, two.clock())[0]]
    two.await_waiting()
    callers += [two.second.send(value, two.clock())[0] for value in (3.0, 4.0)]
    two.first.engine.release()
    assert [caller.wait().output for caller in callers] == [rows_of(v) for v in (4.0, 6.0, 8.0)]
    assert [batch.rows for batch in two.second.engine.batches] == [3]


def test_an_engine_that_is_lost_gives_its_turn_back(two: Two) -> None:
    two.first.engine.fail(MemoryError())  # type: ignore[arg-type]
    two.first.engine.release()
    caller, _ = two.second.send(2.0, two.clock())
    assert caller.wait().output == rows_of(4.0)
