"""Traces on their way to a receiver that takes, refuses, or hangs."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from inferd_server.monitoring.alerts.sinks import Pace
from inferd_server.monitoring.tracing.otlp import SpanEncoder, poster
from inferd_server.monitoring.tracing.sender import MOST_AT_ONCE, MOST_WAITING, TraceSender

from tests.fakes.otlp_receiver import OtlpReceiver
from tests.server.monitoring.tracing.test_spans import traced

SOON = Pace(between=0.01, first=0.01, longest=0.01)
PATIENCE = 10.0


def sender(url: str, headers_file: str = "", pace: Pace = SOON) -> TraceSender:
    encode = SpanEncoder((("service.name", "s"), ("process.pid", 7)), "1")
    post = poster(f"{url}/v1/traces", headers_file)
    return TraceSender(encode, post, random.getrandbits, lambda: 100.0, lambda: 5100.0, pace)


def counts(sending: TraceSender) -> tuple[float, float]:
    found = sending.counters()
    return found["inferd_traces_sent_total"], found["inferd_traces_dropped_total"]


def test_a_message_has_the_times_of_the_epoch_and_says_who_sends_it(tmp_path: Path) -> None:
    headers = tmp_path / "headers"
    headers.write_text("# who we are\nauthorization: Bearer x: y\n\n")
    with OtlpReceiver() as receiver:
        sending = sender(receiver.url, str(headers))
        sending.start()
        sending.put(traced())
        root, *_ = receiver.wait_for("decode", "batch m")
        sending.close(PATIENCE)
    assert root.start_time_unix_nano == 5_010_000_000_000
    assert root.end_time_unix_nano == 5_015_000_000_000
    assert root.kind == root.SPAN_KIND_SERVER
    resource = receiver.messages[0].resource_spans[0].resource.attributes
    assert {one.key: one.value.string_value or one.value.int_value for one in resource} == {
        "service.name": "s", "process.pid": 7,
    }  # fmt: skip
    sent = {name.lower(): value for name, value in receiver.headers[0].items()}
    assert sent["authorization"] == "Bearer x: y"
    assert (sent["content-type"], sent["path"]) == ("application/x-protobuf", "/v1/traces")
    assert counts(sending) == (1, 0)


def test_what_is_not_taken_now_is_sent_again() -> None:
    with OtlpReceiver(lambda number: 503 if number < 3 else 200) as receiver:
        sending = sender(receiver.url)
        sending.start()
        sending.put(traced())
        receiver.wait_for("decode")
        sending.close(PATIENCE)
    assert counts(sending) == (1, 0)


def test_what_is_refused_for_good_is_counted_and_the_next_is_sent() -> None:
    with OtlpReceiver(lambda number: 400 if number < 2 else 200) as receiver:
        sending = sender(receiver.url)
        sending.start()
        sending.put(traced())
        receiver.tried(1)
        sending.put(traced())
        receiver.wait_for("decode")
        sending.close(PATIENCE)
    assert counts(sending) == (1, 1)


def test_a_header_that_cannot_be_sent_costs_no_more_than_what_it_came_with(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    headers = tmp_path / "headers"
    headers.write_text(": without a name\n")
    with OtlpReceiver() as receiver:
        sending = sender(receiver.url, str(headers))
        sending.start()
        sending.put(traced())
        sending.close(PATIENCE)
        assert counts(sending) == (0, 1)
    assert "traces are lost" in caplog.text


def test_beyond_the_bound_traces_are_dropped_and_nobody_waits() -> None:
    # It is not started: nothing is taken away.
    sending = sender("http://127.0.0.1:9")
    for _ in range(MOST_WAITING + 3):
        sending.put(traced())
    assert counts(sending) == (0, 3)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9"])
def test_at_the_end_what_cannot_be_sent_is_counted(url: str) -> None:
    sending = sender(url, pace=Pace(between=60.0, first=60.0))
    sending.start()
    sending.put(traced())
    sending.close(PATIENCE)
    assert counts(sending) == (0, 1)


def test_when_a_message_is_full_nothing_is_waited_for() -> None:
    with OtlpReceiver() as receiver:
        sending = sender(receiver.url, pace=Pace(between=600.0, first=600.0))
        sending.start()
        for _ in range(MOST_AT_ONCE):
            sending.put(traced())
        receiver.wait_for("decode")
        sending.close(PATIENCE)
    assert counts(sending) == (MOST_AT_ONCE, 0)


def test_at_the_end_what_waits_is_sent_with_its_batches() -> None:
    with OtlpReceiver() as receiver:
        sending = sender(receiver.url, pace=Pace(between=60.0, first=60.0))
        sending.start()
        sending.put(traced())
        sending.close(PATIENCE)
    names = [span.name for span in receiver.spans()]
    assert names.count("batch m") == names.count("attempt") == 1
