"""Steps of sequences run one after the other, and none builds on what nobody was answered for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from inferd_engines.engine import EngineError
from inferd_server.batching.decision import BatchBounds, Decision
from inferd_server.batching.queue import BatchQueue
from inferd_server.errors import (
    EngineFailure,
    InferdError,
    InvalidInput,
    SequenceNotFound,
    WorkerLost,
)
from inferd_server.processes.link.layout import Layout

from tests.fakes.clock import FakeClock
from tests.server.batching.requests import Request
from tests.server.sequences.bench import ARRANGEMENTS, SEVERAL, Stateful, split, value_of

WITHIN = 30.0


@pytest.fixture(params=list(ARRANGEMENTS))
def model(request: pytest.FixtureRequest) -> Iterator[Stateful]:
    with ARRANGEMENTS[request.param]() as made:
        yield made


@pytest.fixture(params=list(SEVERAL))
def instances(request: pytest.FixtureRequest) -> Iterator[Stateful]:
    with SEVERAL[request.param]() as made:
        yield made


def busy(model: Stateful) -> None:
    """Let a run of another sequence begin, which goes on until `release`."""
    model.hold()
    model.send(99, 0.0, start=True)
    assert model.engines[0].running.wait(WITHIN)


def refused(caller_error: InferdError) -> None:
    assert isinstance(caller_error, SequenceNotFound)
    assert "sequence_start" in str(caller_error)


def test_a_step_never_runs_before_one_of_another_shape_that_came_first(model: Stateful) -> None:
    assert model.answer(1, 1.0, start=True) == 1.0
    busy(model)
    other = model.send(2, 10.0, start=True)
    second, third = model.send(1, 2.0, width=3), model.send(1, 4.0)
    model.release()
    # The third step has the shape of the batch that runs next.
    assert [value_of(caller) for caller in (other, second, third)] == [10.0, 3.0, 7.0]


def test_steps_that_were_sent_together_build_on_each_other(model: Stateful) -> None:
    busy(model)
    sent = [model.send(1, 1.0, start=not n, width=1 + n % 2) for n in range(6)]
    model.release()
    assert [value_of(caller) for caller in sent] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]


@pytest.mark.parametrize("how", ["cancelled", "timed out"])
def test_a_step_whose_caller_leaves_while_it_runs_ends_the_sequence_and_what_follows(
    model: Stateful, how: str
) -> None:
    assert model.answer(1, 1.0, start=True) == 1.0
    model.hold()
    gone = model.send(1, 2.0)
    assert model.engines[0].running.wait(WITHIN)
    following = [model.send(1, 4.0), model.send(1, 8.0)]
    model.give_up(gone, how)
    model.release()
    for caller in following:
        refused(caller.wait().error)
    refused(model.send(1, 16.0).wait().error)
    assert model.answer(1, 5.0, start=True) == 5.0


def test_a_step_whose_caller_leaves_while_an_earlier_one_runs_does_not_end_that_one(
    model: Stateful,
) -> None:
    assert model.answer(1, 1.0, start=True) == 1.0
    model.hold()
    runs = model.send(1, 2.0)
    assert model.engines[0].running.wait(WITHIN)
    gone, later = model.send(1, 4.0), model.send(1, 8.0)
    model.give_up(gone, "cancelled")
    model.release()
    assert value_of(runs) == 3.0
    refused(later.wait().error)


def test_of_a_batch_the_sequence_whose_caller_left_ends_and_the_others_go_on(
    model: Stateful,
) -> None:
    busy(model)
    batch = [model.send(key, float(key), start=True) for key in (1, 2, 3)]
    model.engines[0].running.clear()
    model.release()
    assert [value_of(caller) for caller in batch] == [1.0, 2.0, 3.0]
    busy(model)
    batch = [model.send(key, 10.0) for key in (1, 2, 3)]
    model.give_up(batch[1], "cancelled")
    model.release()
    assert [value_of(batch[0]), value_of(batch[2])] == [11.0, 13.0]
    assert (model.answer(1, 1.0), model.answer(3, 1.0)) == (12.0, 14.0)
    refused(model.send(2, 1.0).wait().error)


def test_a_step_that_fails_alone_ends_its_sequence(model: Stateful) -> None:
    assert model.answer(1, 1.0, start=True) == 1.0
    model.engines[0].fail(EngineError("once"))
    assert isinstance(model.send(1, 2.0).wait().error, EngineFailure)
    refused(model.send(1, 4.0).wait().error)


def test_instances_run_one_step_of_a_sequence_at_a_time_and_others_beside_it(
    instances: Stateful,
) -> None:
    assert instances.answer(1, 1.0, start=True) == 1.0
    instances.hold()
    first = instances.send(1, 2.0)
    await_runs(instances, 1)
    second = instances.send(1, 4.0)
    other = instances.send(2, 8.0, start=True)
    await_runs(instances, 2)
    ran = [e.batches[-1].inputs["INPUT0"].item() for e in instances.engines if e.running.is_set()]
    assert sorted(ran) == [2.0, 8.0]
    instances.release()
    assert [value_of(caller) for caller in (first, second, other)] == [3.0, 7.0, 8.0]


def test_what_instances_take_in_turns_builds_on_each_other(instances: Stateful) -> None:
    total = 0.0
    for value in range(1, 20):
        total += value
        found = [instances.answer(key, float(value), start=value == 1) for key in (1, 2)]
        assert found == [total, total]


def test_a_front_that_dies_ends_the_sequences_of_its_steps_that_wait_or_run() -> None:
    with split(1, fronts=2) as model:
        for key in (1, 2, 3):
            assert model.answer(key, 1.0, start=True) == 1.0
        model.hold()
        runs = model.send(1, 2.0)
        assert model.engines[0].running.wait(WITHIN)
        waits = model.send(2, 2.0)
        model.bench.inbox.detach(0)
        model.release()
        found = [model.send(key, 4.0, front=1).wait() for key in (1, 2, 3)]
        refused(found[0].error)
        refused(found[1].error)
        assert value_of(found[2]) == 5.0
        # The front begins anew.
        for one in model.bench.fronts[0].link.take_back():
            one.job.fail(WorkerLost("gone"))
        model.bench.inbox.attach(0)
        assert [runs.answers, waits.answers] == [1, 1]


def test_a_step_whose_outputs_cannot_be_sent_ends_its_sequence() -> None:
    # What is large goes through the engine, and not through the memory for answers.
    with split(1, Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)) as model:
        assert model.answer(1, 1.0, start=True) == 1.0
        model.engines[0].widen(1 << 11)
        assert isinstance(model.send(1, 2.0).wait().error, InvalidInput)
        model.engines[0].widen(1)
        refused(model.send(1, 4.0).wait().error)


def await_runs(model: Stateful, count: int) -> None:
    """Return once so many engines run; they are held."""
    running = [engine for engine in model.engines if engine.running.is_set()]
    while len(running) < count:
        running = [engine for engine in model.engines if engine.running.wait(0.01)]


@dataclass
class Taken:
    """A decision that an instance works on."""

    decision: Decision[Request]
    sequences: set[int] = field(default_factory=set)


class Instances(RuleBasedStateMachine):
    """Instances take batches and answer them, in any order of things; steps keep theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.queue: BatchQueue[Request] = BatchQueue(BatchBounds(3, sequences=True), self.clock)
        self.waiting: dict[int, list[Request]] = {}
        self.taken: list[Taken] = []

    @rule(
        sequence=st.integers(1, 3),
        key=st.sampled_from("ab"),
        patience=st.none() | st.integers(0, 3),
    )
    def submit(self, sequence: int, key: str, patience: int | None) -> None:
        now = self.clock()
        deadline = None if patience is None else now + patience
        request = Request(1, key, now, deadline, sequence=sequence)
        assert self.queue.submit(request)
        self.waiting.setdefault(sequence, []).append(request)

    @rule(seconds=st.integers(0, 3))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def take(self) -> None:
        decision = self.queue.poll()
        requests = [*decision.run, *decision.drop]
        at_work = {sequence for one in self.taken for sequence in one.sequences}
        for request in requests:
            # The oldest of its sequence, of which nothing else is at work.
            assert self.waiting[request.sequence].pop(0) is request
            assert request.sequence not in at_work
            at_work.add(request.sequence)
        if requests:
            self.taken.append(Taken(decision, {request.sequence for request in requests}))

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.taken))
        self.queue.finished((*one.decision.run, *one.decision.drop))
        self.taken.remove(one)

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waits = [request for requests in self.waiting.values() for request in requests]
        request = data.draw(st.sampled_from(waits))
        request.cancelled = True
        assert not self.queue.withdraw(request)

    @invariant()
    def rows_are_those_that_wait(self) -> None:
        assert self.queue.rows == sum(map(len, self.waiting.values()))

    def teardown(self) -> None:
        while self.queue.rows:
            for one in self.taken:
                self.queue.finished((*one.decision.run, *one.decision.drop))
            self.taken.clear()
            self.take()


TestInstances = Instances.TestCase
