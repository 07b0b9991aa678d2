"""What a front makes of what the worker tells about its models."""

from __future__ import annotations

import os

import pytest
from inferd_server.control.messages import ModelRecord
from inferd_server.errors import ModelNotReady
from inferd_server.front.catalog import Catalog
from inferd_server.front.dispatch import Dispatch
from inferd_server.front.quarantine import Quarantine
from inferd_server.link.layout import Layout
from inferd_server.link.memory import LinkMemory, create
from inferd_server.link.sending import FrontLink
from inferd_server.repository.config import ModelConfig
from inferd_server.repository.handle import Bounds, Description
from inferd_server.scheduler.slot import NoRoom

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING

LAYOUT = Layout(requests=8, input_bytes=1 << 16, answer_bytes=1 << 12)
BOUNDS = Bounds(4, 0.0, 8, 1 << 20)


def record(number: int | None, state: str = "READY", reason: str = "") -> ModelRecord:
    """A record of m/1 with the worker's number of it, if it serves."""
    about = None
    if number is not None:
        about = Description("m", 1, ModelConfig(), DOUBLING, BOUNDS, "fake", "", "", number=number)
    return ModelRecord("m", 1, state, reason, about)


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def catalog(changes: list[None]) -> Catalog:
    wake = os.eventfd(0, os.EFD_NONBLOCK)
    link = FrontLink(LinkMemory(create(LAYOUT), LAYOUT), wake)
    quarantine = Quarantine(60.0, FakeClock())
    dispatch = Dispatch(link, quarantine, 0.0, FakeClock(), lambda _seconds, _task: None)
    return Catalog(dispatch, lambda: changes.append(None))


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
