"""What a server finds out of its models' rows, and whether it asks again: in every arrangement."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.v1.server_pb2 import StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub

from tests import models
from tests.mixing import built, weight
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import infer_request, metrics_text

ARRANGEMENTS = ("inline", pytest.param("threads", marks=pytest.mark.slow), "split")


def choosy() -> models.ModelProto:
    """100 modulo X (X - 1): fails on zeros and on ones."""
    return built(
        [("Sub", "X one_id", "less"), ("Mul", "X less", "both"), ("Mod", "hundred both", "Y")],
        weight("hundred", 100, np.int64),
        weight("one_id", 1, np.int64),
        given="INT64", answer=("INT64", ("batch", 4)),
    )  # fmt: skip


def batch_reason(where: dict[str, int]) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
        answer = ServerServiceStub(channel).Status(StatusRequest(), timeout=PATIENCE)
    (model,) = answer.models
    return str(model.batch_reason)


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_second_start_takes_the_verdict_of_the_first(processes: str, tmp_path: Path) -> None:
    repository = models.repository(tmp_path / "models", {"m": models.scale(2)})
    store = tmp_path / "kept"
    flags = ("--processes", processes, "--verdict-store", str(store))
    with ready_process(repository, *flags) as (_, where):
        assert " runs, " in batch_reason(where)
    (file,) = store.glob("*.json")
    held = json.loads(file.read_text())
    file.write_text(json.dumps(held | {"reason": "found at an earlier start"}))
    with ready_process(repository, *flags) as (_, where):
        assert batch_reason(where) == "found at an earlier start"
    models.save(models.scale(3), repository / "m/1/model.onnx")
    with ready_process(repository, *flags) as (_, where):
        assert " runs, " in batch_reason(where)


@pytest.mark.parametrize("processes", ["threads", "split"])
def test_health_tries_a_model_that_takes_no_zeros_with_its_last_request(
    processes: str, tmp_path: Path
) -> None:
    repository = models.repository(tmp_path, {"m": choosy()})
    # One front, since each knows the requests that it was sent itself.
    flags = ("--processes", processes, "--fronts", "1", "--canary-interval-s", "0.2")
    with ready_process(repository, *flags) as (_, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            request = infer_request("m", {"X": np.full((1, 4), 7, np.int64)})
            stub = GRPCInferenceServiceStub(channel)
            answer = stub.ModelInfer(request, timeout=PATIENCE, wait_for_ready=True)
            (status,) = ServerServiceStub(channel).Status(StatusRequest(), timeout=PATIENCE).models
        assert answer.model_name == "m"
        assert status.state == "READY"
        assert status.reason.startswith("a run on zeros failed: ")
        pause = threading.Event()
        for _ in range(1000):
            if 'inferd_canary_runs_total{model="m",outcome="ok"' in metrics_text(
                where["metrics_port"]
            ):
                break
            pause.wait(0.02)
        found = metrics_text(where["metrics_port"])
        assert 'inferd_canary_runs_total{model="m",outcome="ok"' in found
        assert 'model="m",outcome="failed"' not in found
