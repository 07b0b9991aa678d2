"""What ModelStatistics tells, in every arrangement: phases that add up, and callers' requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd_server.batching.inline import InlineLoop
from inferd_server.monitoring.phases import PHASES

from tests import models
from tests.server.monitoring.timing import ASKED, samples, told
from tests.server.serving import (
    PATIENCE,
    Running,
    infer_request,
    metrics_text,
    rows,
    running,
    running_replicas,
    running_split,
)

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
Serve = Callable[..., AbstractContextManager[Running]]


def inline(folder: Path, **settings: object) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(time.monotonic), **settings)


ARRANGEMENTS: dict[str, Serve] = {
    "inline": inline,
    "threads": running,
    "split": running_split,
    "replicas": running_replicas,
}


@pytest.fixture(params=ARRANGEMENTS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    models.repository(tmp_path, {"plain": models.scale(2.0), "cached": models.scale(2.0)})
    (tmp_path / "cached" / "model.yaml").write_text("response_cache: {}\n")
    with ARRANGEMENTS[request.param](tmp_path) as served:
        yield served


def statistics_of(server: Running, model: str) -> oip.ModelStatistics:
    asked = oip.ModelStatisticsRequest(name=model)
    (found,) = server.stub.ModelStatistics(asked, timeout=PATIENCE).model_stats
    return found


def explained(found: oip.ModelStatistics) -> float:
    """Return which part of the successes' time lies in the phases."""
    stats = found.inference_stats
    phases = (
        stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output,
        stats.cache_hit,
    )  # fmt: skip
    return sum(phase.ns for phase in phases) / stats.success.ns


def test_phases_add_up_to_the_time_of_successes(server: Running) -> None:
    small, large = infer_request("plain", rows(1.0)), infer_request("plain", rows(*[1.0] * 32))
    for _ in range(30):
        server.infer(small)
        server.infer(large)
    futures = [server.stub.ModelInfer.future(large, timeout=PATIENCE) for _ in range(30)]
    for future in futures:
        future.result()
    found = statistics_of(server, "plain")
    assert found.inference_stats.success.count == 90
    assert 0.95 <= explained(found) <= 1.0 + 1e-6


def test_phases_of_cached_and_merged_requests_add_up_too(server: Running) -> None:
    for value in range(20):
        request = infer_request("cached", rows(float(value)))
        futures = [server.stub.ModelInfer.future(request, timeout=PATIENCE) for _ in range(5)]
        for future in futures:
            future.result()
    found = statistics_of(server, "cached")
    assert found.inference_stats.success.count == 100
    assert found.inference_stats.cache_hit.count > 0
    assert 0.95 <= explained(found) <= 1.0 + 1e-6


def test_phases_of_each_request_add_up_under_load(server: Running) -> None:
    requests = [infer_request("plain", rows(*[1.0] * (1 + number % 8))) for number in range(200)]
    calls = [
        server.stub.ModelInfer.future(each, timeout=PATIENCE, metadata=[ASKED]) for each in requests
    ]
    times = sorted((told(call) for call in calls), key=lambda one: one["total"])
    for one in (times[100], times[198]):
        assert sum(one[name] for name in PHASES) == pytest.approx(one["total"], rel=0.05)
    # The counters are those of all requests, of whichever process.
    counted = samples(server, "inferd_phase_seconds_total", model="plain")
    for name in PHASES:
        assert counted[name] * 1000 == pytest.approx(sum(one[name] for one in times), abs=1e-2)
    (total,) = samples(server, "inferd_request_seconds_sum", model="plain").values()
    assert sum(counted.values()) == pytest.approx(total, rel=1e-6)


def test_a_slow_bucket_names_a_trace_of_a_request_that_fell_into_it(server: Running) -> None:
    request = infer_request("plain", rows(1.0))
    header = ("traceparent", f"00-{TRACE}-00f067aa0ba902b7-01")
    server.stub.ModelInfer(request, timeout=PATIENCE, metadata=[header])
    wanted = f'# {{trace_id="{TRACE}"}}'
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    lines = [
        line for line in metrics_text(server.metrics_port, accept).splitlines() if wanted in line
    ]
    assert [line.partition("{")[0] for line in lines] == ["inferd_request_seconds_bucket"]
    assert TRACE not in metrics_text(server.metrics_port)


def test_refused_requests_are_counted_apart_from_failures(server: Running) -> None:
    wrong = infer_request("plain", {"INPUT0": np.zeros((1, 5), np.float32)})
    for _ in range(3):
        assert server.refused(wrong).code() is grpc.StatusCode.INVALID_ARGUMENT
    server.infer(infer_request("plain", rows(1.0)))
    stats = statistics_of(server, "plain").inference_stats
    assert (stats.success.count, stats.fail.count) == (1, 0)
    labels = 'code="INVALID_ARGUMENT",model="plain",version="1"'
    text = metrics_text(server.metrics_port)
    assert f"inferd_refused_requests_total{{{labels}}} 3.0" in text
    assert f"inferd_requests_total{{{labels}}} 3.0" in text


@pytest.mark.parametrize("serve", [running, running_split])
def test_trials_count_among_themselves_alone(serve: Serve, tmp_path: Path) -> None:
    models.repository(tmp_path, {"m": models.scale(2.0)})
    tried = 'inferd_canary_runs_total{model="m",outcome="ok",version="1"}'
    with serve(tmp_path, canary_interval_s=0.05) as server:
        until = time.monotonic() + PATIENCE
        while tried not in (text := metrics_text(server.metrics_port)):
            assert time.monotonic() < until
        found = statistics_of(server, "m")
        assert (found.execution_count, found.inference_count) == (0, 0)
        assert not found.batch_stats
        assert found.inference_stats.success.count == 0
        for name in ("batch_rows", "compute_seconds", "request_seconds", "queue_seconds"):
            assert f'inferd_{name}_count{{model="m",version="1"}}' not in text.replace(
                f'inferd_{name}_count{{model="m",version="1"}} 0.0', ""
            )
        server.infer(infer_request("m", rows(1.0)))
        assert statistics_of(server, "m").execution_count == 1
