"""Memory that a server holds after much has come and gone: about what it held before."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.memory import LOOK_S
from onnx import ModelProto, helper, numpy_helper

from tests import models
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import CHANNEL, infer_request, rows

ARRANGEMENTS = {
    "inline": ("--processes", "inline"),
    "threads": ("--processes", "threads"),
    "split": ("--processes", "split", "--fronts", "1"),
}
MORE = 1.1
LOADS, MESSAGES = 200, 600


def resident(pid: int) -> dict[int, int]:
    """Return the KiB that a process and its children hold, by process."""
    listed = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    found = {}
    for each in (pid, *map(int, listed.stdout.split())):
        lines = Path(f"/proc/{each}/status").read_text().splitlines()
        found[each] = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return found


def assert_about_as_before(before: dict[int, int], after: dict[int, int]) -> None:
    assert before.keys() == after.keys()
    assert all(after[pid] <= MORE * held for pid, held in before.items()), (before, after)


def weighty() -> ModelProto:
    """INPUT0 FP32 [batch, 4] through 8 MiB of weights."""
    weights = numpy_helper.from_array(np.ones((4, 1 << 19), np.float32), "weights")
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    return models.model(
        [
            helper.make_node("MatMul", ["INPUT0", "weights"], ["wide"]),
            helper.make_node("ReduceMax", ["wide", "axes"], ["OUTPUT0"], keepdims=1),
        ],
        [models.tensor("INPUT0", "FP32", ("batch", 4))],
        [models.tensor("OUTPUT0", "FP32", ("batch", 1))],
        [weights, axes],
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_hundreds_of_loads_and_unloads_leave_memory_as_it_was(
    tmp_path: Path, arrangement: str
) -> None:
    repository = models.repository(tmp_path, {"m": weighty(), "stays": models.scale(2.0)})
    with (
        ready_process(repository, *ARRANGEMENTS[arrangement]) as (process, where),
        grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        unload = oip.RepositoryModelUnloadRequest(model_name="m")
        stub.RepositoryModelUnload(unload, timeout=PATIENCE)
        before = resident(process.pid)
        for _ in range(LOADS):
            load = oip.RepositoryModelLoadRequest(model_name="m")
            stub.RepositoryModelLoad(load, timeout=PATIENCE)
            stub.ModelInfer(infer_request("m", rows(1.0)), timeout=PATIENCE)
            stub.RepositoryModelUnload(unload, timeout=PATIENCE)
        assert_about_as_before(before, resident(process.pid))


@pytest.mark.slow
@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_messages_of_many_shapes_leave_memory_as_it_was_once_the_server_is_idle(
    tmp_path: Path, arrangement: str
) -> None:
    proto = models.identity("FP32", dims=("batch", "width"))
    repository = models.repository(tmp_path, {"m": proto})
    with (
        ready_process(repository, *ARRANGEMENTS[arrangement]) as (process, where),
        grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}", CHANNEL) as channel,
    ):
        stub = GRPCInferenceServiceStub(channel)
        before = resident(process.pid)
        for width in np.random.default_rng(0).integers(1, 400_000, MESSAGES):
            inputs = {"INPUT0": np.ones((1, width), np.float32)}
            stub.ModelInfer(infer_request("m", inputs), timeout=PATIENCE)
        until = time.monotonic() + 4 * LOOK_S + PATIENCE
        while time.monotonic() < until:
            after = resident(process.pid)
            if all(after[pid] <= MORE * held for pid, held in before.items()):
                return
        assert_about_as_before(before, after)
