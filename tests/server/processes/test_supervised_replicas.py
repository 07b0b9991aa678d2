"""When replicas are told to take calls, and what the next one of them is told first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_server.models.entries import UNLOADED
from inferd_server.models.overrides import Override
from inferd_server.processes.messages import (
    Condition,
    Listen,
    Listening,
    Load,
    Loaded,
    ModelOverrides,
    ModelRecord,
    ModelRecords,
    ProcessPlace,
    RegisterRegion,
)
from inferd_server.processes.spawn import REPLICA

from tests.fakes.child import FakeChild
from tests.server.processes.supervised import Bench, Speaking, hears

GONE = ModelRecord("gone", 1, "UNAVAILABLE", UNLOADED, None)
SERVED = ModelRecords((GONE, ModelRecord("m", 1, "READY", "", None)), True, frozenset({"m"}))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, fronts=0, replicas=2)
    yield made
    made.close()


def says(child: FakeChild, *messages: object) -> None:
    """Let a replica tell or ask something."""
    assert isinstance(child.channel, Speaking)
    for message in messages:
        child.channel.says.put(message)


def started(bench: Bench) -> list[tuple[FakeChild, ProcessPlace]]:
    """Return two replicas that take calls and have their models."""
    found = [bench.next(REPLICA) for _ in range(2)]
    for child, _ in found:
        hears(child, Listen)
        says(child, Listening("fake"), SERVED, Loaded(frozenset()))
    for child, _ in found:
        while not told_ready(child):
            pass
    return found


def told_ready(child: FakeChild) -> bool:
    found = hears(child, Condition)
    assert isinstance(found, Condition)
    return found.ready


def test_the_first_replicas_take_calls_at_once_and_are_ready_when_both_have_loaded(
    bench: Bench,
) -> None:
    (first, _), (second, _) = started(bench)
    assert (first.child.name, second.child.name) == ("replica-0", "replica-1")


def test_a_replica_beside_others_takes_calls_once_it_has_what_they_have(bench: Bench) -> None:
    (first, place), (second, _) = started(bench)
    assert place.unloaded == place.wanted == frozenset()
    first.die()
    new, place = bench.next(REPLICA)
    assert (place.wanted, place.unloaded) == ({"m"}, {"gone"})
    told = hears(new, Condition, Listen)
    assert isinstance(told, Condition)
    assert told.ready
    says(new, Loaded(frozenset({"m"})))
    # All are asked to look once more, and the new one has no file.
    while second.is_asked()[0] != Load("m"):
        pass
    while not new.channel.told.empty():
        assert not isinstance(new.hears(), Listen)
    # Its own recovery has found the files.
    says(new, SERVED)
    hears(new, Listen)


def test_where_no_replica_is_left_the_next_one_answers_for_health_at_once(bench: Bench) -> None:
    found = started(bench)
    for child, _ in found:
        child.die()
    # One may begin while only one of both is gone.
    bench.next(REPLICA)
    new, _ = bench.next(REPLICA)
    assert not told_ready(new)
    hears(new, Listen)


def test_what_callers_gave_is_told_before_a_replica_may_listen(bench: Bench) -> None:
    (first, _), (second, _) = started(bench)
    override, region = Override("{}"), RegisterRegion("r", "/key", 0, 1)
    says(second, Load("m", override), region)
    while second.is_asked()[0] != region:
        pass
    first.die()
    new, place = bench.next(REPLICA)
    assert place.awaits_overrides
    assert hears(new, ModelOverrides, RegisterRegion, Condition) == ModelOverrides({"m": override})
    assert hears(new, ModelOverrides, RegisterRegion, Condition) == region
    assert isinstance(hears(new, ModelOverrides, RegisterRegion, Condition, Listen), Condition)
