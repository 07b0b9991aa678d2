"""Events arrive in their order, whatever a sink does, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import pytest
from inferd_server.errors import SettingsError
from inferd_server.monitoring.alerts.firing import AlertEvent
from inferd_server.monitoring.alerts.sinks import (
    MOST_AT_ONCE,
    MOST_WAITING,
    AlertSink,
    Notify,
    Pace,
    sinks_of,
)

from tests.fakes.webhook import WITHIN, Webhook

QUICK = Pace(between=0.0, first=0.001, longest=0.01)


def event(number: int, resolved: bool = False) -> AlertEvent:
    return AlertEvent(("Hot", ()), resolved, f"event {number}")


@contextmanager
def sink(notify: Notify, pace: Pace = QUICK) -> Iterator[AlertSink]:
    made = AlertSink("test", notify, pace)
    made.start()
    try:
        yield made
    finally:
        made.stop(time.monotonic())


def test_a_message_says_what_fires_and_what_is_over() -> None:
    told: SimpleQueue[tuple[str, str]] = SimpleQueue()

    def notify(title: str, body: str) -> bool:
        told.put((title, body))
        return True

    with sink(notify) as one:
        one.put([event(1), event(2, resolved=True)])
        assert told.get(timeout=WITHIN) == (
            "inferd: 1 firing, 1 resolved",
            "FIRING event 1\nRESOLVED event 2",
        )


def test_what_is_refused_is_sent_again_until_it_arrives_in_its_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = iter([False, OSError("no route"), False, True, True])
    arrived: SimpleQueue[str] = SimpleQueue()

    def notify(_: str, body: str) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if answer:
            arrived.put(body)
        return answer

    with caplog.at_level(logging.INFO), sink(notify) as one:
        one.put([event(1)])
        assert arrived.get(timeout=WITHIN) == "FIRING event 1"
        one.put([event(2)])
        assert arrived.get(timeout=WITHIN) == "FIRING event 2"
    assert [record.message for record in caplog.records] == [
        "alerts do not arrive, and are sent again",
        "alerts arrive again",
    ]


def test_nobody_waits_for_a_sink_that_hangs_and_what_came_meanwhile_is_one_message() -> None:
    held, bodies = threading.Event(), SimpleQueue[str]()

    def notify(_: str, body: str) -> bool:
        bodies.put(body)
        return held.wait(WITHIN)

    with sink(notify) as one:
        one.put([event(0)])
        assert bodies.get(timeout=WITHIN) == "FIRING event 0"
        for number in range(1, 11):
            one.put([event(number)])
        assert one.unsent == 11
        held.set()
        assert bodies.get(timeout=WITHIN).splitlines() == [
            f"FIRING event {n}" for n in range(1, 11)
        ]


def test_what_waits_is_bounded_the_oldest_goes_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held, bodies = threading.Event(), SimpleQueue[str]()

    def notify(_: str, body: str) -> bool:
        bodies.put(body)
        return held.wait(WITHIN)

    with sink(notify) as one:
        one.put([event(0)])
        bodies.get(timeout=WITHIN)
        one.put([event(number) for number in range(1, MOST_WAITING + 3)])
        assert one.unsent == MOST_WAITING
        assert caplog.messages == ["alerts are lost: too many wait for a sink"]
        held.set()
        lines = bodies.get(timeout=WITHIN).splitlines()
        assert (len(lines), lines[0]) == (MOST_AT_ONCE, "FIRING event 3")


def test_messages_keep_their_distance_and_repetitions_grow_apart() -> None:
    pace = Pace(between=10.0, first=1.0, longest=300.0)
    assert [pace.after(failures) for failures in (0, 1, 2, 3, 9, 10, 1000)] == [
        10.0, 1.0, 2.0, 4.0, 256.0, 300.0, 300.0,
    ]  # fmt: skip


def test_what_waits_at_the_end_is_sent_first() -> None:
    bodies: SimpleQueue[str] = SimpleQueue()

    def notify(_: str, body: str) -> bool:
        bodies.put(body)
        return True

    one = AlertSink("test", notify, Pace(between=3600.0))
    one.start()
    one.put([event(1)])
    bodies.get(timeout=WITHIN)
    one.put([event(2)])
    one.stop(time.monotonic() + WITHIN)
    one.join()
    assert bodies.get(timeout=WITHIN) == "FIRING event 2"


def test_a_real_webhook_gets_what_it_refused_before(tmp_path: Path) -> None:
    with Webhook(lambda number: 500 if number < 3 else 200) as webhook:
        path = tmp_path / "urls"
        path.write_text(f"# who is told\n\n{webhook.url} # the webhook\n")
        (made,) = sinks_of(path, QUICK)
        with sink(made._notify) as one:
            one.put([event(1), event(2, resolved=True)])
            assert webhook.lines() == ["FIRING event 1", "RESOLVED event 2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "line 1 of"),
        ("\nnosuch://user:secret@x.test", "line 2 of"),
        (None, "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_no_url_is_shown(
    text: str | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "urls"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SettingsError, match=r"^alert_urls_file: ") as refused:
        sinks_of(path, QUICK)
    assert said in str(refused.value)
    assert "secret" not in str(refused.value)
