"""What a front makes of what the worker tells about its models."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from inferd_engines.engine import Signature
from inferd_server.batching.slots import NoRoom
from inferd_server.batching.stream_share import BATCHES
from inferd_server.errors import HandleRetired, ModelNotReady
from inferd_server.inference.cacheable import owners
from inferd_server.models.config import ModelConfig, SequenceConfig
from inferd_server.models.entries import State
from inferd_server.models.version import Description, ModelBounds
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes.front_links import FrontLinks
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.layout import Layout
from inferd_server.processes.link.memory import LinkMemory, create
from inferd_server.processes.messages import ModelRecord
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.remote_models import RemoteLine, RemoteModels
from inferd_server.processes.retry import RetryingLink

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING
from tests.server.callers import Caller, job_of

LOST = "the worker process was lost"
LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)
BOUNDS = ModelBounds(4, 0.0, 8, 1 << 20)
# Of a link with room for more than a stream's share.
SMALL = ModelBounds(2, 0.0, 8, 1 << 20)
PLAIN = ModelConfig()


def record(
    number: int | None,
    state: str = "READY",
    reason: str = "",
    name: str = "m",
    config: ModelConfig = PLAIN,
    signature: Signature = DOUBLING,
) -> ModelRecord:
    """A record of version 1 with the worker's number of it, if it serves."""
    about = None
    if number is not None:
        about = Description(name, 1, config, signature, BOUNDS, "fake", "", "", number=number)
    return ModelRecord(name, 1, state, reason, about, {} if number is None else {0: number})


def small(told: ModelRecord) -> ModelRecord:
    """The record with bounds of `SMALL`."""
    assert told.description is not None
    told.description.bounds = SMALL
    return told


@pytest.fixture
def changes() -> list[None]:
    return []


def dispatch_of(wait_s: float) -> RetryingLink:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    link = FrontLink(LinkMemory(create(LAYOUT), LAYOUT), wake)
    quarantine = Quarantine(60.0, FakeClock())
    links = FrontLinks([link])
    return RetryingLink(links, quarantine, wait_s, FakeClock(), lambda _seconds, _task: None)


@pytest.fixture
def remote_models(changes: list[None]) -> RemoteModels:
    return RemoteModels(dispatch_of(0.0), lambda: changes.append(None), Metrics())


class Patient:
    """Remote models whose requests wait for the next worker."""

    def __init__(self) -> None:
        self.retrying = dispatch_of(10.0)
        self.remote_models = RemoteModels(
            self.retrying,
            lambda: self.retrying.settle(self.remote_models.successor),
            Metrics(),
        )

    def lose(self) -> None:
        self.remote_models.lose(LOST)
        self.retrying.lose(LOST)

    def send(self, name: str = "m", stream: object | None = None) -> Caller:
        handle, caller = self.remote_models.resolve(name, ""), Caller()
        job = job_of(handle.arena, [1.0], caller)
        job.stream = stream
        assert handle.queue.submit(job)
        return caller


@pytest.fixture
def patient() -> Patient:
    return Patient()


def test_a_version_that_is_told_again_keeps_its_handle(remote_models: RemoteModels) -> None:
    remote_models.update([record(1)])
    handle = remote_models.resolve("m", "")
    remote_models.update([record(1), ModelRecord("other", 1, "LOADING", "", None)])
    assert remote_models.resolve("m", "1") is handle
    assert [entry.name for entry in remote_models.entries()] == ["m", "other"]


def test_a_version_with_another_number_is_another_handle_and_the_old_line_is_closed(
    remote_models: RemoteModels,
) -> None:
    remote_models.update([record(1)])
    before = remote_models.resolve("m", "")
    remote_models.update([record(2)])
    after = remote_models.resolve("m", "")
    assert (before.number, after.number) == (1, 2)
    assert before.queue.closed  # type: ignore[attr-defined]
    assert not after.queue.closed  # type: ignore[attr-defined]


def test_models_of_a_lost_worker_refuse_with_its_reason(
    remote_models: RemoteModels, changes: list[None]
) -> None:
    remote_models.update([record(1)])
    handle = remote_models.resolve("m", "")
    told = len(changes)
    remote_models.lose("the worker process was lost")
    with pytest.raises(ModelNotReady, match="the worker process was lost"):
        remote_models.resolve("m", "")
    assert handle.queue.closed  # type: ignore[attr-defined]
    assert len(changes) > told


def test_a_request_may_take_no_more_than_the_links_memory(remote_models: RemoteModels) -> None:
    remote_models.update([record(1)])
    arena = remote_models.resolve("m", "").arena
    with pytest.raises(NoRoom, match="max_queue_bytes"):
        arena.reserve([], 1, LAYOUT.input_bytes + 1)


def test_requests_are_taken_while_the_next_worker_loads_and_go_to_it(patient: Patient) -> None:
    remote_models = patient.remote_models
    remote_models.update([record(1), record(2, name="other")])
    patient.lose()
    first = patient.send()
    # The next worker begins with another model, and says nothing of this one yet.
    remote_models.update([record(None, "LOADING", name="other")], settled=False)
    second = patient.send()
    remote_models.update([record(1, name="other"), record(None, "LOADING")], settled=False)
    assert (first.answers, second.answers, patient.retrying.held) == (0, 0, 2)
    remote_models.update([record(1, name="other"), record(2)])
    assert patient.retrying.held == 0
    assert patient.send().answers == 0
    assert not remote_models.resolve("m", "").queue.closed  # type: ignore[attr-defined]


def test_what_a_stream_has_not_sent_yet_waits_for_the_next_worker_too(patient: Patient) -> None:
    patient.remote_models.update([small(record(1))])
    stream = object()
    sent = BATCHES * SMALL.limits.max_rows
    callers = [patient.send(stream=stream) for _ in range(sent + 2)]
    assert patient.remote_models.resolve("m", "").queue.waiting_requests == 2
    patient.lose()
    assert patient.retrying.held == sent + 2
    patient.remote_models.update([small(record(2))])
    assert patient.retrying.held == 0
    assert {caller.answers for caller in callers} == {0}


def test_what_a_stream_has_not_sent_yet_is_admitted_anew_when_its_model_is_replaced(
    patient: Patient,
) -> None:
    patient.remote_models.update([small(record(1))])
    stream = object()
    callers = [patient.send(stream=stream) for _ in range(BATCHES * SMALL.limits.max_rows + 2)]
    patient.remote_models.update([record(2)])
    assert [type(caller.error) for caller in callers[-2:]] == [HandleRetired] * 2
    assert {caller.answers for caller in callers[:-2]} == {0}


def test_models_of_a_lost_worker_are_not_ready_while_requests_wait(patient: Patient) -> None:
    remote_models = patient.remote_models
    remote_models.update([record(1)])
    patient.lose()
    (entry,) = remote_models.entries()
    assert (entry.state, entry.reason) == (State.UNAVAILABLE, LOST)
    remote_models.update([record(None, "LOADING")], settled=False)
    assert [entry.state for entry in remote_models.entries()] == [State.LOADING]


def test_numbers_of_the_next_worker_are_not_taken_for_those_of_the_last(patient: Patient) -> None:
    remote_models = patient.remote_models
    remote_models.update([record(1), record(2, name="other")])
    patient.lose()
    lost = remote_models.resolve("m", "")
    remote_models.update([record(1, name="other")], settled=False)
    new = remote_models.resolve("other", "")
    remote_models.update([record(1, name="other")], settled=False)
    assert remote_models.resolve("other", "") is new
    assert remote_models.resolve("m", "") is lost
    assert (new.number, lost.number) == (1, 0)


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ([record(None, "UNAVAILABLE", "its file is damaged")], ModelNotReady),
        ([], HandleRetired),
        ([record(1, signature=Signature(DOUBLING.inputs * 2, DOUBLING.outputs))], HandleRetired),
    ],
    ids=["failed", "gone", "another signature"],
)
def test_what_waits_for_a_model_that_does_not_come_back_is_answered_at_once(
    patient: Patient, told: list[ModelRecord], error: type[Exception]
) -> None:
    patient.remote_models.update([record(1)])
    patient.lose()
    caller = patient.send()
    patient.remote_models.update(told)
    assert isinstance(caller.error, error)
    assert patient.retrying.held == 0


def test_the_end_of_a_worker_leaves_the_answers_of_its_models_where_they_are(
    patient: Patient,
) -> None:
    kept = record(1)
    assert kept.description is not None
    kept.description.digest = "abc"
    patient.remote_models.update([kept])
    known = owners(patient.remote_models.entries())
    assert len(known) == 1
    patient.lose()
    assert owners(patient.remote_models.entries()) == known
    patient.remote_models.update([record(None, "LOADING")], settled=False)
    assert owners(patient.remote_models.entries()) == known
    patient.remote_models.update([kept])
    assert owners(patient.remote_models.entries()) == known


def test_a_model_whose_sequences_are_lost_refuses_until_the_next_worker_serves_it(
    patient: Patient,
) -> None:
    steps = ModelConfig(sequence=SequenceConfig())
    patient.remote_models.update([record(1, config=steps)])
    patient.lose()
    with pytest.raises(ModelNotReady, match=LOST):
        patient.remote_models.resolve("m", "")


def on(numbers: dict[int, int], state: str = "READY", **told: object) -> ModelRecord:
    """A record of a version that these workers serve, by what they call it."""
    return replace(record(next(iter(numbers.values()), None), state), workers=numbers, **told)  # type: ignore[arg-type]


def targets(remote_models: RemoteModels) -> dict[int, int]:
    queue = remote_models.resolve("m", "").queue
    assert isinstance(queue, RemoteLine)
    return dict(queue.numbers)


def test_a_version_that_another_worker_serves_too_keeps_its_handle(
    remote_models: RemoteModels,
) -> None:
    remote_models.update([on({0: 1})])
    handle = remote_models.resolve("m", "")
    remote_models.update([on({0: 1, 1: 5})])
    assert remote_models.resolve("m", "") is handle
    assert targets(remote_models) == {0: 1, 1: 5}
    remote_models.update([on({1: 5})])
    assert remote_models.resolve("m", "") is handle
    assert targets(remote_models) == {1: 5}


def test_a_version_that_is_loaded_anew_in_one_worker_is_another_handle(
    remote_models: RemoteModels,
) -> None:
    remote_models.update([on({0: 1, 1: 5})])
    handle = remote_models.resolve("m", "")
    remote_models.update([on({0: 2, 1: 5})])
    assert remote_models.resolve("m", "") is not handle
    assert handle.queue.closed  # type: ignore[attr-defined]
    assert targets(remote_models) == {0: 2, 1: 5}


def test_a_version_goes_on_in_the_workers_that_are_left(patient: Patient) -> None:
    remote_models = patient.remote_models
    remote_models.update([on({0: 1, 1: 5}), record(2, name="other")])
    handle = remote_models.resolve("m", "")
    remote_models.lose(LOST, 1)
    assert remote_models.resolve("m", "") is handle
    assert targets(remote_models) == {0: 1}
    assert [entry.state for entry in remote_models.entries()] == [State.READY] * 2
    remote_models.lose(LOST, 0)
    assert [entry.returning for entry in remote_models.entries()] == [True, True]
    # The last one that served it may have been either.
    remote_models.update([on({1: 1})], settled=False)
    assert targets(remote_models) == {1: 1}
    assert remote_models.resolve("m", "") is not handle


def test_what_waits_for_a_worker_is_kept_while_others_tell_of_theirs(patient: Patient) -> None:
    remote_models = patient.remote_models
    remote_models.update([on({1: 1}), record(2, name="other")])
    remote_models.lose(LOST, 1)
    caller = patient.send()
    awaited = on({}, "UNAVAILABLE", reason=LOST, returning=True)
    # All others have tried everything, and the lost one is told of.
    remote_models.update([awaited, record(2, name="other")])
    remote_models.update([on({}, "LOADING"), record(2, name="other")], settled=False)
    remote_models.update([awaited, record(2, name="other")], settled=False)
    assert (caller.answers, patient.retrying.held) == (0, 1)
    remote_models.update([on({}, "UNAVAILABLE", reason="its GPU is given up")])
    assert isinstance(caller.error, ModelNotReady)
