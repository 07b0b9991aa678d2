"""Equal requests: who runs, who waits, and who gets which answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from inferd_server.batching.timers import SPARE
from inferd_server.cache.key import Owner
from inferd_server.cache.lookup import Stored
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    InferdError,
    QueueFull,
    WorkerLost,
    WouldBeLate,
)

from tests.server.cache.herd import OWNER, TTL, Herd


def test_equal_requests_in_flight_share_one_execution_and_keep_their_ids() -> None:
    herd = Herd()
    calls = [herd.ask(b"same", ident=b"#%d" % n) for n in range(100)]
    assert len(herd.running) == 1
    herd.finish(b"answer")
    assert [call.answer for call in calls] == [b"answer#%d" % n for n in range(100)]
    assert herd.results == {"miss": 1, "merged": 99}
    assert herd.flights.waiting == 0


def test_what_differs_runs_by_itself() -> None:
    herd = Herd()
    first, second = herd.ask(b"first"), herd.ask(b"second")
    herd.finish(b"2", 1)
    herd.finish(b"1", 0)
    assert (first.answer, second.answer) == (b"1", b"2")


def test_a_later_request_is_answered_from_what_is_known_until_it_is_too_old() -> None:
    herd = Herd()
    herd.ask(b"same")
    herd.finish(b"old")
    herd.clock.advance(TTL - 1)
    known = herd.ask(b"same", ident=b"!")
    assert known.answer == b"old!"
    assert known.trailing == (("inferd-cache", "hit"),)
    herd.clock.advance(1)
    late = herd.ask(b"same")
    assert late.answers == []
    herd.finish(b"new")
    assert late.answer == b"new"
    assert herd.results == {"miss": 2, "hit": 1}


def test_statistics_count_hits_apart_from_what_ran() -> None:
    herd = Herd()
    herd.ask(b"same")
    follower = herd.ask(b"same")
    herd.clock.advance(2.0)
    herd.finish(b"answer")
    herd.ask(b"same")
    assert len(follower.answers) == 1
    now = herd.statistics.read()
    # The leader's own success is counted by whoever runs it.
    assert (now.hit.count, now.miss.count, now.success.count, now.rows) == (2, 1, 2, 0)
    assert now.success.seconds == 2.0
    assert herd.metrics.of("model", 1).snapshot().in_flight == 0


@pytest.mark.parametrize("error", [EngineFailure(), WorkerLost("gone"), QueueFull("full")])
def test_an_error_is_answered_to_those_who_asked_meanwhile_and_never_kept(
    error: InferdError,
) -> None:
    herd = Herd()
    calls = [herd.ask(b"same") for _ in range(3)]
    herd.fail(error)
    assert [call.answer for call in calls] == [error] * 3
    later = herd.ask(b"same")
    herd.finish(b"answer")
    assert later.answer == b"answer"


@pytest.mark.parametrize("error", [Cancelled("gone"), DeadlinePassed("late")])
def test_the_end_of_a_leader_alone_lets_the_next_one_lead(error: InferdError) -> None:
    herd = Herd()
    leader, heir, last = (herd.ask(b"same", ident=b"%d" % n) for n in range(3))
    herd.fail(error)
    assert (leader.answer, heir.answers, last.answers) == (error, [], [])
    assert len(herd.running) == 1
    herd.finish(b"answer")
    assert (heir.answer, last.answer) == (b"answer1", b"answer2")
    assert herd.results == {"miss": 2, "merged": 1}
    assert herd.metrics.of("model", 1).snapshot().in_flight == 0


def test_a_leader_that_would_be_late_leaves_the_others_to_ask_for_themselves() -> None:
    herd = Herd()
    leader, *others = (herd.ask(b"same", ident=b"%d" % n) for n in range(4))
    herd.fail(WouldBeLate("not in time"))
    assert isinstance(leader.answer, WouldBeLate)
    assert len(herd.running) == 1
    herd.finish(b"answer")
    assert [call.answer for call in others] == [b"answer%d" % n for n in (1, 2, 3)]
    assert herd.metrics.of("model", 1).snapshot().in_flight == 0


def test_a_thousand_who_would_all_be_late_are_told_so() -> None:
    herd = Herd(max_waiting=2000)
    calls = [herd.ask(b"same") for _ in range(1500)]
    herd.refusal = WouldBeLate("not in time")
    herd.fail(WouldBeLate("not in time"))
    assert {type(call.answer) for call in calls} == {WouldBeLate}
    assert herd.flights.waiting == 0


def test_those_who_cannot_wait_any_more_do_not_lead() -> None:
    herd = Herd()
    herd.ask(b"same")
    late = herd.ask(b"same", deadline=1.0)
    gone = herd.ask(b"same")
    heir = herd.ask(b"same", deadline=3.0)
    herd.clock.advance(2.0)
    # As if it went away at this very moment, and was not told of yet.
    gone.cancelled = True
    herd.fail(Cancelled())
    assert isinstance(late.answer, DeadlinePassed)
    assert isinstance(gone.answer, Cancelled)
    herd.finish(b"answer")
    assert heir.answer == b"answer"


def test_thousands_whose_deadline_passed_are_no_deep_recursion() -> None:
    herd = Herd(max_waiting=5000)
    calls = [herd.ask(b"same", deadline=1.0) for _ in range(5000)]
    herd.clock.advance(1.0)
    herd.fail(DeadlinePassed())
    assert {type(call.answer) for call in calls} == {DeadlinePassed}
    assert herd.running == []


def test_an_heir_that_is_refused_ends_the_flight_for_all() -> None:
    herd = Herd()
    calls = [herd.ask(b"same") for _ in range(3)]
    herd.refusal = QueueFull("no room")
    herd.fail(Cancelled())
    assert [type(call.answer) for call in calls] == [Cancelled, QueueFull, QueueFull]
    herd.refusal = None
    herd.ask(b"same")
    assert len(herd.running) == 1


def test_a_follower_is_answered_at_its_own_deadline() -> None:
    herd = Herd()
    leader = herd.ask(b"same")
    patient, hasty = herd.ask(b"same", deadline=9.0), herd.ask(b"same", deadline=2.0)
    assert herd.alarms.ring() == 2.0
    herd.clock.advance(2.0)
    assert herd.alarms.ring() == 9.0
    assert isinstance(hasty.answer, DeadlinePassed)
    herd.finish(b"answer")
    assert (leader.answer, patient.answer) == (b"answer", b"answer")
    herd.clock.advance(100.0)
    assert herd.alarms.ring() is None
    assert len(hasty.answers) == len(patient.answers) == 1


def test_deadlines_of_those_who_have_their_answer_are_forgotten() -> None:
    herd = Herd()
    for _ in range(1000):
        herd.ask(b"same", deadline=1e9)
    herd.finish(b"answer")
    assert len(herd.alarms._heap) <= 2 * SPARE


def test_a_follower_that_goes_away_leaves_alone() -> None:
    herd = Herd()
    leader, gone, stays = herd.ask(b"same"), herd.ask(b"same"), herd.ask(b"same")
    gone.cancel()
    assert isinstance(gone.answer, Cancelled)
    assert herd.flights.waiting == 1
    herd.finish(b"answer")
    assert (leader.answer, stays.answer) == (b"answer", b"answer")
    gone.cancel()
    assert len(gone.answers) == 1


def test_no_more_wait_than_may() -> None:
    herd = Herd(max_waiting=2)
    for _ in range(3):
        herd.ask(b"same")
    with pytest.raises(QueueFull, match="cache_max_waiting"):
        herd.ask(b"same")
    herd.finish(b"answer")
    assert herd.ask(b"same").answer == b"answer"


def test_a_response_that_cannot_be_sent_is_an_error_of_that_caller_alone() -> None:
    herd = Herd()
    leader, broken, fine = herd.ask(b"same"), herd.ask(b"same"), herd.ask(b"same")
    broken.unsendable = True
    herd.finish(b"answer")
    assert isinstance(broken.answer, EngineFailure)
    assert (leader.answer, fine.answer) == (b"answer", b"answer")


def test_a_leader_that_cannot_be_answered_still_answers_the_others() -> None:
    herd = Herd()
    leader, fine = herd.ask(b"same"), herd.ask(b"same")
    leader.unsendable = True
    with pytest.raises(MemoryError):
        herd.finish(b"answer")
    assert fine.answer == b"answer"


def test_a_leader_admitted_anew_to_the_same_model_still_leads() -> None:
    herd = Herd()
    leader, follower = herd.ask(b"same"), herd.ask(b"same")
    call, _ = herd.running.pop()
    herd.admit(call, 0.0, 2)
    assert [running for running, _ in herd.running] == [call]
    herd.finish(b"answer")
    assert (leader.answer, follower.answer) == (b"answer", b"answer")


def test_after_a_model_was_replaced_everybody_asks_again() -> None:
    herd = Herd()
    leader, *others = [herd.ask(b"same", ident=b"%d" % n) for n in range(3)]
    call, _ = herd.running.pop()
    herd.owner = Owner("model", 1, "another digest")
    herd.admit(call, 0.0, 2)
    # Of the new model one leads, whoever came first, and nothing is known of the old one's answer.
    assert len(herd.running) == 1
    herd.finish(b"new")
    assert [c.answer for c in (leader, *others)] == [b"new0", b"new1", b"new2"]
    herd.owner = OWNER
    herd.ask(b"same")
    assert len(herd.running) == 1


def test_an_answer_of_a_model_that_is_gone_is_not_kept() -> None:
    herd = Herd()
    herd.ask(b"before")
    herd.finish(b"kept")
    during = herd.ask(b"during")
    herd.cache.retain([])
    assert herd.store.nbytes == 0
    herd.finish(b"late")
    assert during.answer == b"late"
    assert len(herd.store) == 0


class Level:
    """A second level whose lookups end when a test says so."""

    available = True

    def __init__(self, worth_it: bool = True) -> None:
        self.worth_it = worth_it
        self.lookups: list[Callable[[Stored | None], None]] = []
        self.stored: list[tuple[bytes, float]] = []

    def lookup(self, key: bytes, owner: Owner, found: Callable[[Stored | None], None]) -> bool:
        if self.worth_it:
            self.lookups.append(found)
        return self.worth_it

    def store(self, key: bytes, value: bytes, ttl: float) -> None:
        self.stored.append((value, ttl))


def test_a_herd_waits_for_one_lookup_and_what_it_finds_is_kept_no_longer_than_there() -> None:
    level = Level()
    herd = Herd(remote=level)
    calls = [herd.ask(b"same", ident=b"%d" % n) for n in range(3)]
    assert (len(level.lookups), herd.running) == (1, [])
    level.lookups.pop()(Stored(b"answer", 5.0))
    assert [call.answer for call in calls] == [b"answer0", b"answer1", b"answer2"]
    assert herd.results == {"shared_hit": 1, "merged": 2}
    herd.clock.advance(4.0)
    assert herd.ask(b"same").answer == b"answer"
    herd.clock.advance(1.0)
    assert herd.ask(b"same").answers == []
    assert level.stored == []


def test_what_no_level_knows_runs_once_and_is_stored_in_both() -> None:
    level = Level()
    herd = Herd(remote=level)
    calls = [herd.ask(b"same") for _ in range(2)]
    level.lookups.pop()(None)
    calls.append(herd.ask(b"same"))
    herd.finish(b"answer")
    assert [call.answer for call in calls] == [b"answer"] * 3
    assert level.stored == [(b"answer", TTL)]
    assert herd.ask(b"same").answer == b"answer"
    assert herd.results == {"miss": 1, "merged": 2, "hit": 1}


def test_a_second_level_that_is_not_worth_asking_delays_nothing() -> None:
    herd = Herd(remote=Level(worth_it=False))
    herd.ask(b"same")
    assert len(herd.running) == 1


def test_a_leader_of_a_lookup_in_vain_may_be_refused_like_any_other() -> None:
    level = Level()
    herd = Herd(remote=level)
    leader, follower = herd.ask(b"same"), herd.ask(b"same")
    herd.refusal = DeadlinePassed()
    herd.clock.advance(1.0)
    level.lookups.pop()(None)
    # Both were offered the lead, and neither could take it.
    assert isinstance(leader.answer, DeadlinePassed)
    assert isinstance(follower.answer, DeadlinePassed)
    assert herd.flights.waiting == 0


def test_an_answer_that_lands_while_it_is_looked_for_is_found_after_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    herd = Herd()
    herd.ask(b"same")
    look = herd.store.get

    def land_after(key: bytes, now: float) -> bytes | None:
        found = look(key, now)
        if herd.running:
            herd.finish(b"answer")
        return found

    monkeypatch.setattr(herd.store, "get", land_after)
    assert herd.ask(b"same", ident=b"!").answer == b"answer!"
    assert herd.results == {"miss": 1, "hit": 1}
    assert herd.running == []
