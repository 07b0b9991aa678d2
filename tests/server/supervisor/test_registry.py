"""A shared memory region is known to every front, or to none."""

from __future__ import annotations

import pytest
from inferd_server.control.channel import PeerLost
from inferd_server.control.messages import NoRegion, Region
from inferd_server.errors import AlreadyExists, InvalidInput, ShuttingDown
from inferd_server.supervisor.regions import Registry
from inferd_server.supervisor.spawn import Child

from tests.fakes.child import FakeChild

REGION = Region("r", "/key", 0, 64)


def opens(_: object) -> None:
    """Answer that it is done."""


def refuses(body: object) -> None:
    if isinstance(body, Region):
        raise InvalidInput("no such object")


def is_gone(_: object) -> None:
    raise PeerLost("gone")


def fronts(*replies: object) -> list[FakeChild]:
    made = [FakeChild("front", index) for index in range(len(replies))]
    for front, reply in zip(made, replies, strict=True):
        front.channel.reply = reply  # type: ignore[assignment]
    return made


def children(made: list[FakeChild]) -> list[Child]:
    return [front.child for front in made]


def test_a_region_is_opened_by_every_front_and_told_to_new_ones() -> None:
    registry, made = Registry(), fronts(opens, opens)
    registry.register(REGION, children(made))
    assert [front.is_asked()[0] for front in made] == [REGION, REGION]
    new = FakeChild("front", 2)
    registry.tell(new.child)
    assert new.hears() == REGION


def test_a_region_that_one_front_cannot_open_is_forgotten_by_all() -> None:
    registry, made = Registry(), fronts(opens, refuses)
    with pytest.raises(InvalidInput, match="no such object"):
        registry.register(REGION, children(made))
    for front in made:
        assert [front.is_asked()[0], front.is_asked()[0]] == [REGION, NoRegion("r")]
    new = FakeChild("front", 2)
    registry.tell(new.child)
    assert new.channel.told.empty()


def test_a_refused_region_without_a_name_takes_no_other_away() -> None:
    registry, made = Registry(), fronts(opens, opens)
    registry.register(REGION, children(made))
    with pytest.raises(InvalidInput, match="needs a name"):
        registry.register(Region("", "/key", 0, 64), children(made))
    with pytest.raises(AlreadyExists):
        registry.register(REGION, children(made))
    for front in made:
        assert front.is_asked()[0] == REGION
        assert front.channel.asked.empty()


def test_a_name_is_taken_until_it_is_given_back() -> None:
    registry, made = Registry(), children(fronts(opens))
    registry.register(REGION, made)
    with pytest.raises(AlreadyExists, match="'r'"):
        registry.register(REGION, made)
    registry.unregister("r", made)
    registry.register(REGION, made)
    registry.unregister_all(made)
    registry.register(REGION, made)


def test_a_front_that_dies_meanwhile_does_not_count_against_a_region() -> None:
    registry, made = Registry(), fronts(is_gone, opens)
    registry.register(REGION, children(made))
    with pytest.raises(AlreadyExists):
        registry.register(REGION, children(made))


def test_a_region_that_no_front_could_open_is_refused() -> None:
    with pytest.raises(ShuttingDown, match="no process"):
        Registry().register(REGION, children(fronts(is_gone)))
