from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client.bench import processes
from inferd_client.bench.load import measure
from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Samples
from inferd_client.bench.senders import code_of

from tests.fakes.oip_server import OipServer, echo

PLAN = Plan("127.0.0.1:1", b"", concurrency=2, duration=1.0)

# Whatever sends, the figures mean the same.
each_client = pytest.mark.parametrize("client", ["grpc", "fast"])


def drive(plan: Plan) -> Samples:
    return processes.run(plan, 1, lambda _: None)


def plan_for(server: OipServer, **changes: object) -> Plan:
    request = pb.ModelInferRequest(model_name="m").SerializeToString()
    plan = Plan(server.address, request, concurrency=2, duration=30.0, requests=10)
    return replace(plan, **changes)  # type: ignore[arg-type]


@each_client
@pytest.mark.parametrize("stream", [False, True])
def test_every_request_is_counted(server: OipServer, stream: bool, client: str) -> None:
    samples = drive(plan_for(server, stream=stream, client=client))
    assert samples.codes == {"OK": 10}
    assert len(samples.latencies) == 10
    assert samples.ended > samples.started


@each_client
@pytest.mark.parametrize("stream", [False, True])
def test_failed_calls_are_counted_by_code(server: OipServer, stream: bool, client: str) -> None:
    server.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QueueFull")
    samples = drive(plan_for(server, stream=stream, client=client))
    assert samples.codes == {"RESOURCE_EXHAUSTED": 10}
    assert samples.latencies == []


@each_client
@pytest.mark.parametrize("stream", [False, True])
def test_request_is_given_up_after_its_timeout(
    server: OipServer, stream: bool, client: str
) -> None:
    server.infer = server.hold
    server.stream_infer = lambda requests: (
        pb.ModelStreamInferResponse(infer_response=server.hold(request)) for request in requests
    )
    plan = plan_for(server, stream=stream, requests=2, timeout=0.05, client=client)
    assert drive(plan).codes == {"DEADLINE_EXCEEDED": 2}


@each_client
def test_stream_that_the_server_ends_is_opened_anew(server: OipServer, client: str) -> None:
    opened = Counter[str]()

    def once(requests: Iterator[pb.ModelInferRequest]) -> Iterator[pb.ModelStreamInferResponse]:
        opened["streams"] += 1
        yield pb.ModelStreamInferResponse(infer_response=echo(next(requests)))

    server.stream_infer = once
    samples = drive(plan_for(server, stream=True, concurrency=1, requests=4, client=client))
    assert samples.codes.total() == 4
    assert samples.codes["OK"] == opened["streams"] > 1


class SlowSender:
    """Takes a second of its own clock for each request."""

    def __init__(self) -> None:
        self.now = 100.0

    async def send(self) -> str:
        self.now += 1.0
        return "OK"

    def close(self) -> None:
        raise AssertionError("measure does not own its senders")


def test_latency_in_open_loop_includes_the_wait_for_a_free_place() -> None:
    sender = SlowSender()
    plan = replace(PLAN, concurrency=1, rate=4.0, duration=2.0)
    samples = asyncio.run(measure(plan, [sender], lambda: sender.now))
    # Due at 0 and 0.25 s; the only place was free at 0 and at 1 s.
    assert samples.latencies == [1.0, 1.75]
    assert samples.unsent == 6


@each_client
def test_warmup_is_not_measured(server: OipServer, client: str) -> None:
    calls = Counter[str]()

    def counted(request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        calls["n"] += 1
        return echo(request)

    server.infer = counted
    samples = drive(plan_for(server, requests=4, warmup=0.05, client=client))
    assert samples.codes == {"OK": 4}
    assert calls["n"] > 4


@pytest.mark.parametrize(
    ("name", "code"), [("QueueFull", "RESOURCE_EXHAUSTED"), ("", "UNKNOWN"), ("New", "UNKNOWN")]
)
def test_error_in_a_stream_is_counted_by_its_name(name: str, code: str) -> None:
    response = pb.ModelStreamInferResponse(error_message="failed")
    response.infer_response.parameters["inferd_error"].string_param = name
    assert code_of(response.SerializeToString()) == code


def test_answer_in_a_stream_is_a_success() -> None:
    answer = pb.ModelStreamInferResponse(infer_response={"id": "a"})
    assert code_of(answer.SerializeToString()) == "OK"
