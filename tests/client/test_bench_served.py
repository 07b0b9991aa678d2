"""The fast client against our own server, on both transports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from inferd_client.bench import processes
from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Samples
from inferd_server.batching.inline import InlineLoop

from tests import models
from tests.server.serving import Running, infer_request, rows, running

LARGE = np.random.default_rng(0).random((1, 150_000)).astype(np.float32)
WAYS = [
    {},
    {"stream": True},
    {"stream": True, "per_stream": 4},
    {"rate": 500.0, "requests": 100},
]


@pytest.fixture(scope="module", params=["aio", "completion_queue"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(
        tmp_path_factory.mktemp("models"),
        {"scaled": models.scale(2.0), "wide": models.identity("FP32", dims=("batch", "size"))},
    )
    inline = InlineLoop(time.monotonic) if request.param == "completion_queue" else None
    with running(folder, inline=inline) as server:
        yield server


def drive(server: Running, plan: Plan, **changes: object) -> Samples:
    given = replace(plan, address=f"127.0.0.1:{server.port}", client="fast", check=True)
    return processes.run(replace(given, **changes), 1, lambda _: None)  # type: ignore[arg-type]


def plan_for(request: bytes, requests: int) -> Plan:
    return Plan("", request, concurrency=8, duration=30.0, requests=requests, connections=2)


@pytest.mark.parametrize("way", WAYS)
def test_small_requests_are_all_answered_alike(server: Running, way: dict[str, object]) -> None:
    request = infer_request("scaled", rows(1.0, 2.0)).SerializeToString()
    samples = drive(server, plan_for(request, 100), **way)
    assert (samples.codes, samples.different, samples.unsent) == ({"OK": 100}, 0, 0)
    assert len(samples.latencies) == 100
    assert min(samples.latencies) > 0


@pytest.mark.parametrize("way", WAYS[:3])
def test_600_kb_go_both_ways(server: Running, way: dict[str, object]) -> None:
    request = infer_request("wide", {"INPUT0": LARGE}).SerializeToString()
    samples = drive(server, plan_for(request, 40), **way)
    assert (samples.codes, samples.different) == ({"OK": 40}, 0)


@pytest.mark.parametrize("way", WAYS[:3])
@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (infer_request("nobody", rows(1.0)), "NOT_FOUND"),
        (infer_request("scaled", {"INPUT0": LARGE}), "INVALID_ARGUMENT"),
    ],
)
def test_refused_requests_are_counted_by_code(
    server: Running, way: dict[str, object], request_: object, code: str
) -> None:
    plan = plan_for(request_.SerializeToString(), 20)  # type: ignore[attr-defined]
    samples = drive(server, plan, **way)
    assert samples.codes == {code: 20}


def test_bytes_that_are_no_request_are_refused(server: Running) -> None:
    samples = drive(server, plan_for(b"\xff\xff", 5))
    assert samples.codes == {"INVALID_ARGUMENT": 5}


def test_host_is_found_by_its_name(server: Running) -> None:
    request = infer_request("scaled", rows(1.0)).SerializeToString()
    plan = replace(plan_for(request, 5), address=f"localhost:{server.port}", client="fast")
    assert processes.run(plan, 1, lambda _: None).codes == {"OK": 5}
