"""What a front makes of what the worker tells about its models."""

from __future__ import annotations

import os

import pytest
from inferd_engines.engine import Signature
from inferd_server.control.messages import ModelRecord
from inferd_server.errors import HandleRetired, ModelNotReady
from inferd_server.front.cacheable import owners
from inferd_server.front.catalog import Catalog
from inferd_server.front.dispatch import Dispatch
from inferd_server.front.quarantine import Quarantine
from inferd_server.link.layout import Layout
from inferd_server.link.memory import LinkMemory, create
from inferd_server.link.sending import FrontLink
from inferd_server.repository.config import ModelConfig, SequenceConfig
from inferd_server.repository.entries import State
from inferd_server.repository.handle import Bounds, Description
from inferd_server.scheduler.slot import NoRoom
from inferd_server.scheduler.stream_share import BATCHES

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING
from tests.server.callers import Caller, job_of

LOST = "the worker process was lost"
LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)
BOUNDS = Bounds(4, 0.0, 8, 1 << 20)
# Of a link with room for more than a stream's share.
SMALL = Bounds(2, 0.0, 8, 1 << 20)
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
    return ModelRecord(name, 1, state, reason, about)


def small(told: ModelRecord) -> ModelRecord:
    """The record with bounds of `SMALL`."""
    assert told.description is not None
    told.description.bounds = SMALL
    return told


@pytest.fixture
def changes() -> list[None]:
    return []


def dispatch_of(wait_s: float) -> Dispatch:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    link = FrontLink(LinkMemory(create(LAYOUT), LAYOUT), wake)
    quarantine = Quarantine(60.0, FakeClock())
    return Dispatch(link, quarantine, wait_s, FakeClock(), lambda _seconds, _task: None)


@pytest.fixture
def catalog(changes: list[None]) -> Catalog:
    return Catalog(dispatch_of(0.0), lambda: changes.append(None))


class Patient:
    """A catalog whose requests wait for the next worker."""

    def __init__(self) -> None:
        self.dispatch = dispatch_of(10.0)
        self.catalog = Catalog(self.dispatch, lambda: self.dispatch.settle(self.catalog.successor))

    def lose(self) -> None:
        self.catalog.lose(LOST)
        self.dispatch.lose(LOST)

    def send(self, name: str = "m", stream: object | None = None) -> Caller:
        handle, caller = self.catalog.resolve(name, ""), Caller()
        job = job_of(handle.arena, [1.0], caller)
        job.stream = stream
        assert handle.queue.submit(job)
        return caller


@pytest.fixture
def patient() -> Patient:
    return Patient()


def test_a_version_that_is_told_again_keeps_its_handle(catalog: Catalog) -> None:
    catalog.update([record(1)])
    handle = catalog.resolve("m", "")
    catalog.update([record(1), ModelRecord("other", 1, "LOADING", "", None)])
    assert catalog.resolve("m", "1") is handle
    assert [entry.name for entry in catalog.entries()] == ["m", "other"]


def test_a_version_with_another_number_is_another_handle_and_the_old_line_is_closed(
    catalog: Catalog,
) -> None:
    catalog.update([record(1)])
    before = catalog.resolve("m", "")
    catalog.update([record(2)])
    after = catalog.resolve("m", "")
    assert (before.number, after.number) == (1, 2)
    assert before.queue.closed  # type: ignore[attr-defined]
    assert not after.queue.closed  # type: ignore[attr-defined]


def test_models_of_a_lost_worker_refuse_with_its_reason(
    catalog: Catalog, changes: list[None]
) -> None:
    catalog.update([record(1)])
    handle = catalog.resolve("m", "")
    told = len(changes)
    catalog.lose("the worker process was lost")
    with pytest.raises(ModelNotReady, match="the worker process was lost"):
        catalog.resolve("m", "")
    assert handle.queue.closed  # type: ignore[attr-defined]
    assert len(changes) > told


def test_a_request_may_take_no_more_than_the_links_memory(catalog: Catalog) -> None:
    catalog.update([record(1)])
    arena = catalog.resolve("m", "").arena
    with pytest.raises(NoRoom, match="max_queue_bytes"):
        arena.reserve([], 1, LAYOUT.input_bytes + 1)


def test_requests_are_taken_while_the_next_worker_loads_and_go_to_it(patient: Patient) -> None:
    catalog = patient.catalog
    catalog.update([record(1), record(2, name="other")])
    patient.lose()
    first = patient.send()
    # The next worker begins with another model, and says nothing of this one yet.
    catalog.update([record(None, "LOADING", name="other")], settled=False)
    second = patient.send()
    catalog.update([record(1, name="other"), record(None, "LOADING")], settled=False)
    assert (first.answers, second.answers, patient.dispatch.held) == (0, 0, 2)
    catalog.update([record(1, name="other"), record(2)])
    assert patient.dispatch.held == 0
    assert patient.send().answers == 0
    assert not catalog.resolve("m", "").queue.closed  # type: ignore[attr-defined]


def test_what_a_stream_has_not_sent_yet_waits_for_the_next_worker_too(patient: Patient) -> None:
    patient.catalog.update([small(record(1))])
    stream = object()
    sent = BATCHES * SMALL.limits.max_rows
    callers = [patient.send(stream=stream) for _ in range(sent + 2)]
    assert patient.catalog.resolve("m", "").queue.waiting_requests == 2
    patient.lose()
    assert patient.dispatch.held == sent + 2
    patient.catalog.update([small(record(2))])
    assert patient.dispatch.held == 0
    assert {caller.answers for caller in callers} == {0}


def test_what_a_stream_has_not_sent_yet_is_admitted_anew_when_its_model_is_replaced(
    patient: Patient,
) -> None:
    patient.catalog.update([small(record(1))])
    stream = object()
    callers = [patient.send(stream=stream) for _ in range(BATCHES * SMALL.limits.max_rows + 2)]
    patient.catalog.update([record(2)])
    assert [type(caller.error) for caller in callers[-2:]] == [HandleRetired] * 2
    assert {caller.answers for caller in callers[:-2]} == {0}


def test_models_of_a_lost_worker_are_not_ready_while_requests_wait(patient: Patient) -> None:
    catalog = patient.catalog
    catalog.update([record(1)])
    patient.lose()
    (entry,) = catalog.entries()
    assert (entry.state, entry.reason) == (State.UNAVAILABLE, LOST)
    catalog.update([record(None, "LOADING")], settled=False)
    assert [entry.state for entry in catalog.entries()] == [State.LOADING]


def test_numbers_of_the_next_worker_are_not_taken_for_those_of_the_last(patient: Patient) -> None:
    catalog = patient.catalog
    catalog.update([record(1), record(2, name="other")])
    patient.lose()
    lost = catalog.resolve("m", "")
    catalog.update([record(1, name="other")], settled=False)
    new = catalog.resolve("other", "")
    catalog.update([record(1, name="other")], settled=False)
    assert catalog.resolve("other", "") is new
    assert catalog.resolve("m", "") is lost
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
    patient.catalog.update([record(1)])
    patient.lose()
    caller = patient.send()
    patient.catalog.update(told)
    assert isinstance(caller.error, error)
    assert patient.dispatch.held == 0


def test_the_end_of_a_worker_leaves_the_answers_of_its_models_where_they_are(
    patient: Patient,
) -> None:
    kept = record(1)
    assert kept.description is not None
    kept.description.digest = "abc"
    patient.catalog.update([kept])
    known = owners(patient.catalog.entries())
    assert len(known) == 1
    patient.lose()
    assert owners(patient.catalog.entries()) == known
    patient.catalog.update([record(None, "LOADING")], settled=False)
    assert owners(patient.catalog.entries()) == known
    patient.catalog.update([kept])
    assert owners(patient.catalog.entries()) == known


def test_a_model_whose_sequences_are_lost_refuses_until_the_next_worker_serves_it(
    patient: Patient,
) -> None:
    steps = ModelConfig(sequence=SequenceConfig())
    patient.catalog.update([record(1, config=steps)])
    patient.lose()
    with pytest.raises(ModelNotReady, match=LOST):
        patient.catalog.resolve("m", "")
