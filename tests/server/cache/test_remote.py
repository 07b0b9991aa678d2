"""The second level: asked on its own thread, given up in time, left alone while it fails."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import pytest
from inferd_server.batching.timers import Timers
from inferd_server.cache import frame, remote
from inferd_server.cache.breaker import Breaker
from inferd_server.cache.key import Owner
from inferd_server.cache.lookup import Stored
from inferd_server.cache.remote import Remote
from inferd_server.monitoring.bounded_log import LINES, PERIOD_S

from tests.fakes.clock import FakeClock
from tests.fakes.shared_cache import FakeClient

WITHIN = 30.0
PATIENCE = 0.5
REST = 5.0
KEY, OTHER = b"k" * 32, b"o" * 32
OWNER = Owner("m", 3, "digest")


class Bench:
    """A remote, and what it told."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.alarms = Timers(self.clock, threaded=False)
        self.client = FakeClient()
        self.told: list[str] = []
        breaker = Breaker(2, REST, self.clock, self.told.append)
        self.remote = Remote(self.client, breaker, self.alarms, self.clock, PATIENCE)
        self.found: queue.Queue[Stored | None] = queue.Queue()

    def look(self, key: bytes = KEY) -> bool:
        return self.remote.lookup(key, OWNER, self.found.put)

    def next(self) -> Stored | None:
        return self.found.get(timeout=WITHIN)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.client.release()
    made.remote.close()


def test_what_was_stored_is_found_with_the_time_that_it_has_left(bench: Bench) -> None:
    assert bench.look()
    assert bench.next() is None
    bench.remote.store(KEY, b"value", 9.0)
    assert bench.look()
    assert bench.next() == Stored(b"value", 9.0)


def test_it_connects_before_it_is_asked(bench: Bench) -> None:
    bench.remote.open()
    assert bench.client.asked.wait(WITHIN)
    assert bench.look()
    assert bench.next() is None
    assert bench.client.connected == 1


def test_a_start_without_it_is_no_error(bench: Bench) -> None:
    bench.client.broken = True
    bench.remote.open()
    assert bench.look()
    assert bench.next() is None
    assert bench.told == ["broken"]


def test_where_nothing_can_be_stored_reading_goes_on_and_it_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    bench.remote.store(KEY, b"value", 9.0)
    bench.client.full = False
    for full in (False, True, True, True, False):
        bench.client.hold()
        bench.client.full = full
        bench.look(OTHER)
        bench.remote.store(KEY, b"value", 9.0)
        bench.client.release()
        bench.next()
        assert bench.look(KEY)
        assert bench.next() is not None
    assert bench.remote.available
    said = [record.message for record in caplog.records]
    assert said.count("the shared cache keeps no more answers") == 1
    assert said.count("the shared cache keeps answers again") == 1


def test_an_answer_under_another_key_is_a_miss(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.client.known[KEY] = Stored(frame.pack(OTHER, b"value"), 9.0)
    assert bench.look()
    assert bench.next() is None
    assert "damaged" in caplog.text


def test_damaged_answers_are_logged_with_their_model_and_not_without_bound(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.client.known[KEY] = Stored(b"garbage", 9.0)
    for _ in range(50):
        assert bench.look()
        assert bench.next() is None
    bench.clock.advance(PERIOD_S)
    assert bench.look()
    assert bench.next() is None
    told = [vars(record) for record in caplog.records if "damaged" in record.getMessage()]
    assert len(told) == LINES + 1
    assert {(line["model"], line["version"], line["key"]) for line in told} == {("m", 3, KEY.hex())}
    assert told[-1]["left_out"] == 50 - LINES


def test_what_waits_travels_together(bench: Bench) -> None:
    bench.client.hold()
    bench.look(b"0" * 32)
    assert bench.client.asked.wait(WITHIN)
    bench.look(KEY)
    bench.look(OTHER)
    bench.remote.store(KEY, b"value", 9.0)
    bench.client.release()
    assert [bench.next() for _ in range(3)] == [None, Stored(b"value", 9.0), None]
    assert bench.client.exchanges == [([b"0" * 32], []), ([KEY, OTHER], [KEY])]


def test_a_lookup_is_given_up_when_patience_ends_and_answered_once(bench: Bench) -> None:
    bench.client.hold()
    bench.look()
    assert bench.client.asked.wait(WITHIN)
    bench.clock.advance(PATIENCE)
    bench.alarms.ring()
    assert bench.next() is None
    bench.look(OTHER)
    bench.client.release()
    # The second one comes after the first, which has no second answer.
    assert bench.next() is None
    assert bench.found.empty()


def test_after_failures_in_a_row_it_is_left_alone_for_a_while(bench: Bench) -> None:
    bench.client.broken = True
    for _ in range(2):
        assert bench.look()
        assert bench.next() is None
    assert bench.told == ["broken"]
    assert not bench.remote.available
    assert not bench.look()
    bench.remote.store(KEY, b"value", 9.0)
    bench.clock.advance(REST)
    assert bench.look(), "one attempt"
    assert bench.next() is None
    assert not bench.look()
    bench.client.broken = False
    bench.clock.advance(REST)
    assert bench.look()
    assert bench.next() is None
    assert bench.told == ["broken", ""]
    assert bench.look()
    assert bench.next() is None
    assert len(bench.client.exchanges) == 5
    assert not any(stored for _, stored in bench.client.exchanges)


def test_an_error_that_nobody_thought_of_is_a_miss(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.client.broken, bench.client.error = True, ValueError("surprise")
    assert bench.look()
    assert bench.next() is None
    assert "surprise" in caplog.text
    bench.client.broken = False
    assert bench.look()
    assert bench.next() is None


def test_more_than_may_wait_are_misses_at_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "MOST_WAITING", 2)
    monkeypatch.setattr(remote, "MOST_WAITING_BYTES", 100)
    bench.client.hold()
    bench.look()
    assert bench.client.asked.wait(WITHIN)
    assert [bench.look(), bench.look(), bench.look()] == [True, True, False]
    bench.remote.store(OTHER, b"v" * 50, 9.0)
    bench.remote.store(OTHER, b"v" * 50, 9.0)
    bench.client.release()
    assert [bench.next() for _ in range(3)] == [None] * 3
    assert bench.client.exchanges == [([KEY], []), ([KEY, KEY], [OTHER])]


def test_closing_answers_who_waits_and_lets_the_connection_go(bench: Bench) -> None:
    bench.client.hold()
    bench.look()
    assert bench.client.asked.wait(WITHIN)
    bench.look(OTHER)
    bench.client.release()
    bench.remote.close()
    assert [bench.next(), bench.next()] == [None, None]
    assert bench.client.closed.wait(WITHIN)
    assert not bench.look()
