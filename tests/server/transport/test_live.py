"""Members are told once, however joining and telling meet."""

from __future__ import annotations

from inferd_server.transport.live import Live


def test_members_and_those_that_come_later_are_told() -> None:
    live: Live[str] = Live()
    told: list[str] = []
    live.add("early")
    live.tell(told.append)
    live.add("late")
    assert told == ["early", "late"]


def test_who_left_is_not_told_and_may_leave_twice() -> None:
    live: Live[str] = Live()
    told: list[str] = []
    live.add("gone")
    live.remove("gone")
    live.remove("gone")
    live.tell(told.append)
    assert told == []


def test_what_was_told_last_is_told_to_those_that_come() -> None:
    live: Live[str] = Live()
    first: list[str] = []
    second: list[str] = []
    live.tell(first.append)
    live.tell(second.append)
    live.add("late")
    assert (first, second) == ([], ["late"])


def test_a_member_may_leave_while_it_is_told() -> None:
    live: Live[str] = Live()
    live.add("one")
    live.tell(live.remove)
    told: list[str] = []
    live.tell(told.append)
    assert told == []
