"""A caller's trace goes on through the server, in every arrangement."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.batching.inline import InlineLoop
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests import models
from tests.fakes.clock import FakeClock
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.server.inference.held import occupy, waiting
from tests.server.processes.split import Split, split_process
from tests.server.serving import (
    PATIENCE,
    Running,
    infer_request,
    rows,
    running,
    running_fake,
    samples,
)

CALLER = "00f067aa0ba902b7"
CALL = "inference.GRPCInferenceService/ModelInfer"


def header(trace: str, flags: str = "01") -> tuple[str, str]:
    return "traceparent", f"00-{trace}-{CALLER}-{flags}"


def trace_id(number: int) -> str:
    return f"{number:032x}"


def of(spans: list[Any], number: int) -> list[Any]:
    return [span for span in spans if span.trace_id.hex() == trace_id(number)]


def named(spans: list[Any], name: str) -> list[Any]:
    return [span for span in spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def whole(spans: list[Any], number: int) -> None:
    """Assert that the spans of a trace are one tree below the caller, each within the one above."""
    found = of(spans, number)
    (call,) = named(found, CALL)
    assert call.parent_span_id.hex() == CALLER
    by_id = {span.span_id: span for span in found}
    for span in found:
        if span is not call:
            above = by_id[span.parent_span_id]
            assert above.start_time_unix_nano <= span.start_time_unix_nano
            # Times are differences that were added again.
            assert span.end_time_unix_nano <= above.end_time_unix_nano + 1000
    direct = [span for span in found if span.parent_span_id == call.span_id]
    took = sum(span.end_time_unix_nano - span.start_time_unix_nano for span in direct)
    assert took == pytest.approx(call.end_time_unix_nano - call.start_time_unix_nano, rel=0.05)


@pytest.fixture(scope="module")
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as found:
        yield found


@pytest.fixture(scope="module")
def split(receiver: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    folder = models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})
    flags = ("--fronts", "1", "--retry-wait-s", "60", "--traces-to", receiver.url)
    flags = (*flags, "--trace-pause-s", "0.1")
    with split_process(folder, *flags, "--trace-share", "0") as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


def ask(server: Split, channel: grpc.Channel, number: int) -> grpc.Future:
    stub = GRPCInferenceServiceStub(channel)
    request = infer_request("scaled", rows(float(number)))
    found: grpc.Future = stub.ModelInfer.future(
        request, timeout=6 * PATIENCE, metadata=[header(trace_id(number))]
    )
    return found


def counted(metrics: Callable[[], Mapping[str, float]], requests: int) -> None:
    """Wait until so many are counted as sent: that is after the receiver has them."""
    for _ in range(1000):
        sent = metrics()["inferd_traces_sent_total"]
        if sent >= requests:
            break
    assert sent == requests


def held_by_a_stopped_worker(server: Split, channel: grpc.Channel, *numbers: int) -> list[Any]:
    """Send requests that a stopped worker has, and cannot have looked at."""
    server.kill("worker", signal.SIGSTOP)
    futures = [ask(server, channel, number) for number in numbers]
    for _ in range(1000):
        if server.metrics()["inferd_slots_in_use"] == len(numbers):
            return futures
    raise AssertionError("the requests did not reach the link")


def test_requests_that_share_a_batch_in_the_worker_are_linked_by_it(
    split: Split, receiver: OtlpReceiver
) -> None:
    with split.channel() as channel:
        futures = held_by_a_stopped_worker(split, channel, 1, 2)
        split.kill("worker", signal.SIGCONT)
        assert [float(np.frombuffer(f.result().raw_output_contents[0], "<f4")[0]) for f in futures]
    spans = receiver.wait_for("batch scaled")
    (batch,) = named(spans, "batch scaled")
    assert {link.trace_id.hex() for link in batch.links} == {trace_id(1), trace_id(2)}
    assert attributes(batch)["inferd.rows"] == 2
    for number in (1, 2):
        whole(spans, number)
        (compute,) = named(of(spans, number), "compute")
        assert [link.span_id for link in compute.links] == [batch.span_id]


def test_what_a_worker_took_with_it_and_the_next_one_answered_are_attempts_side_by_side(
    split: Split, receiver: OtlpReceiver
) -> None:
    with split.channel() as channel:
        (future,) = held_by_a_stopped_worker(split, channel, 3)
        pid = split.kill("worker")
        assert future.result() is not None
    spans = of(receiver.wait_for(*[CALL] * 3), 3)
    whole(spans, 3)
    first, second = named(spans, "attempt")
    assert first.parent_span_id == second.parent_span_id
    assert first.status.code == Status.STATUS_CODE_ERROR
    assert str(pid) in first.status.message or "worker" in first.status.message
    assert second.status.code == Status.STATUS_CODE_UNSET
    assert first.end_time_unix_nano == second.start_time_unix_nano
    (call,) = named(spans, CALL)
    assert attributes(call)["rpc.response.status_code"] == "OK"
    counted(split.metrics, 3)


@pytest.fixture(params=["threads", "inline"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Running, OtlpReceiver]]:
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)})
    inline = InlineLoop(FakeClock()) if request.param == "inline" else None
    with (
        OtlpReceiver() as receiver,
        running(
            folder, inline=inline, traces_to=receiver.url, trace_pause_s=0.1, trace_share=0
        ) as server,
    ):
        yield server, receiver


def test_in_one_process_who_asks_for_it_is_traced_whatever_becomes_of_the_request(
    served: tuple[Running, OtlpReceiver],
) -> None:
    server, receiver = served
    request = infer_request("scaled", rows(1.0))
    server.infer(request, metadata=[("x", "y"), header(trace_id(1)), ("tracestate", "a=b")])
    server.infer(request, metadata=[header(trace_id(2), flags="00")])
    server.infer(request)
    refused = infer_request("scaled", {"INPUT0": np.zeros((1, 5), np.float32)})
    with pytest.raises(grpc.RpcError):
        server.infer(refused, metadata=[header(trace_id(3))])
    streamed = server.stub.ModelStreamInfer(
        iter([request, request]), timeout=PATIENCE, metadata=[header(trace_id(4))]
    )
    assert len(list(streamed)) == 2
    # Both messages of the stream may share a batch.
    spans = receiver.wait_for(*["decode"] * 3, *["batch scaled"] * 2)
    whole(spans, 1)
    (call,) = named(of(spans, 1), CALL)
    assert call.trace_state == "a=b"
    about = attributes(call)
    assert (about["inferd.model"], about["inferd.version"], about["inferd.rows"]) == (
        "scaled", "1", 1,
    )  # fmt: skip
    assert of(spans, 2) == []
    (wrong,) = of(spans, 3)
    assert attributes(wrong)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert "INPUT0" in attributes(wrong)["error.message"]
    calls = [span for span in of(spans, 4) if span.parent_span_id.hex() == CALLER]
    assert [span.name for span in calls] == ["inference.GRPCInferenceService/ModelStreamInfer"] * 2
    counted(lambda: samples(server.metrics_port), 4)


def test_who_goes_away_is_traced_and_so_is_whoever_chance_picks(tmp_path: Path) -> None:
    with OtlpReceiver() as receiver:
        settings = {"traces_to": receiver.url, "trace_pause_s": 0.1, "trace_share": 1}
        with running_fake(tmp_path / "models", **settings) as (server, engine):
            held = occupy(server, engine)
            gone = server.stub.ModelInfer.future(
                infer_request("fake", rows(2.0)), timeout=PATIENCE, metadata=[header(trace_id(1))]
            )
            waiting(server, 1)
            gone.cancel()
            waiting(server, 0)
            engine.release()
            assert held.result(PATIENCE) is not None
            spans = receiver.wait_for(CALL, CALL, "batch fake")
    (cancelled,) = named(of(spans, 1), CALL)
    assert attributes(cancelled)["rpc.response.status_code"] == "CANCELLED"
    # Without a traceparent chance decides, which 1 leaves none.
    (other,) = [span for span in named(spans, CALL) if span is not cancelled]
    assert other.parent_span_id == b""


def test_without_a_receiver_that_answers_requests_are_answered_all_the_same(
    tmp_path: Path,
) -> None:
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with (
        OtlpReceiver(lambda _: None) as receiver,
        running(folder, traces_to=receiver.url, trace_pause_s=0.1, trace_share=1) as server,
    ):
        server.infer(infer_request("scaled", rows(1.0)))
        receiver.tried(1)
        for _ in range(20):
            server.infer(infer_request("scaled", rows(1.0)))
