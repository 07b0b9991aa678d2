"""How a process ends: what was asked of it is answered, and nothing keeps it from ending."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests import models
from tests.server.lifecycle.process import PATIENCE, Process, ready_process
from tests.server.serving import arrays, failure, infer_request, rows
from tests.server.transport.frames import ACK, PING, connected, frame

ARRANGEMENTS = ("inline", "threads", "split")
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


def channel(where: dict[str, int]) -> grpc.Channel:
    return grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_well(repository: Path, number: int) -> None:
    with ready_process(repository) as (process, _):
        process.terminate(number)
        assert process.exit_code() == 0
        process.wait_for("stopped")


def test_readiness_goes_first_and_requests_still_work_during_the_delay(repository: Path) -> None:
    flags = ("--drain-delay-s", "600")
    with ready_process(repository, *flags) as (process, where), channel(where) as open_channel:
        watch = HealthStub(open_channel).Watch(HealthCheckRequest(), timeout=PATIENCE)
        assert next(watch).status == SERVING
        process.terminate()
        assert next(watch).status == NOT_SERVING
        stub = GRPCInferenceServiceStub(open_channel)
        answer = stub.ModelInfer(infer_request("scaled", rows(1.0)), timeout=PATIENCE)
        assert arrays(answer)["OUTPUT0"][0, 0] == 2
        live = HealthStub(open_channel).Check(
            HealthCheckRequest(service="liveness"), timeout=PATIENCE
        )
        assert live.status == SERVING
        assert process.runs
        process.terminate()
        assert process.exit_code() == 0


def test_a_watcher_does_not_keep_the_process_from_ending(repository: Path) -> None:
    flags = ("--drain-timeout-s", "600")
    with ready_process(repository, *flags) as (process, where), channel(where) as open_channel:
        watch = HealthStub(open_channel).Watch(HealthCheckRequest(), timeout=PATIENCE)
        assert next(watch).status == SERVING
        process.terminate()
        assert process.exit_code() == 0


def slow_model() -> ModelProto:
    """INPUT0 FP32 [size, size] multiplied by itself as often as INPUT1 says, in one run."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("MatMul", ["state", "state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    node = helper.make_node("Loop", ["INPUT1", "yes", "INPUT0"], ["OUTPUT0"], body=body)
    return models.model(
        [node],
        [models.tensor("INPUT0", "FP32", (64, 64)), models.tensor("INPUT1", "INT64", ())],
        [models.tensor("OUTPUT0", "FP32", (64, 64))],
        [yes],
    )


def slow_request(steps: int) -> ModelInferRequest:
    return infer_request(
        "slow",
        {"INPUT0": np.eye(64, dtype=np.float32), "INPUT1": np.array(steps, dtype=np.int64)},
    )


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("slow"), {"slow": slow_model()})


class Running:
    """A request that runs in the process by the time that this is made."""

    def __init__(self, where: dict[str, int], steps: int) -> None:
        self._channel = channel(where)
        stub = GRPCInferenceServiceStub(self._channel)
        self.future = stub.ModelInfer.future(slow_request(steps), timeout=PATIENCE)
        # The stream's refusal comes after the request was taken: one connection, one order.
        list(stub.ModelStreamInfer(iter([infer_request("nope", {})]), timeout=PATIENCE))

    def close(self) -> None:
        self._channel.close()


@pytest.fixture
def close() -> Iterator[list[Running]]:
    made: list[Running] = []
    yield made
    for item in made:
        item.close()


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_running_request_finishes(slow: Path, close: list[Running], processes: str) -> None:
    with ready_process(slow, "--processes", processes) as (process, where):
        close.append(request := Running(where, 20_000))
        assert not request.future.done()
        process.terminate()
        answer = arrays(request.future.result())
        np.testing.assert_array_equal(answer["OUTPUT0"], np.eye(64))
        assert process.exit_code() == 0


def test_new_requests_are_refused_while_one_finishes(slow: Path, close: list[Running]) -> None:
    with ready_process(slow) as (process, where):
        close.append(request := Running(where, 20_000))
        process.terminate()
        process.wait_for("draining")
        request.future.result()
        assert process.exit_code() == 0
        with channel(where) as open_channel:
            stub = GRPCInferenceServiceStub(open_channel)
            error = failure(lambda: stub.ModelInfer(slow_request(1), timeout=1))
            assert error.code() == grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_second_signal_does_not_wait_for_a_run_that_never_ends(
    slow: Path, close: list[Running], processes: str
) -> None:
    flags = ("--processes", processes, "--drain-timeout-s", "600")
    with ready_process(slow, *flags) as (process, where):
        close.append(request := Running(where, 2**60))
        process.terminate()
        process.wait_for("draining")
        process.terminate()
        assert process.exit_code() == 0
        assert request.future.exception(PATIENCE) is not None


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_a_run_that_never_ends_uses_up_its_time_and_no_more(
    slow: Path, close: list[Running], processes: str
) -> None:
    flags = ("--processes", processes, "--drain-timeout-s", "0.1")
    with ready_process(slow, *flags) as (process, where):
        close.append(request := Running(where, 2**60))
        process.terminate()
        assert process.exit_code() == 0
        assert request.future.exception(PATIENCE) is not None


@pytest.mark.parametrize("processes", ARRANGEMENTS)
def test_during_a_long_run_health_pings_and_timeouts_are_answered(
    slow: Path, close: list[Running], processes: str
) -> None:
    flags = ("--processes", processes, "--canary-interval-s", "0", "--drain-timeout-s", "0")
    with ready_process(slow, *flags) as (process, where), channel(where) as open_channel:
        close.append(request := Running(where, 2**60))
        health = HealthStub(open_channel).Check(HealthCheckRequest(), timeout=PATIENCE)
        assert health.status == SERVING
        with connected(f"127.0.0.1:{where['grpc_port']}") as connection:
            connection.send(frame(PING, payload=b"are you?"))
            assert connection.await_frame(PING, ACK).payload == b"are you?"
        late = slow_request(1)
        late.parameters["timeout"].int64_param = 1000
        stub = GRPCInferenceServiceStub(open_channel)
        error = failure(lambda: stub.ModelInfer(late, timeout=PATIENCE))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert not request.future.done()
        process.terminate()
        assert process.exit_code() == 0


@pytest.mark.parametrize("processes", ["threads", "replicas"])
def test_a_signal_ends_a_start_that_still_loads(tmp_path: Path, processes: str) -> None:
    """The file of the model is a pipe that nobody writes into: loading it never ends."""
    (tmp_path / "stuck" / "1").mkdir(parents=True)
    os.mkfifo(tmp_path / "stuck" / "1" / "model.onnx")
    flags = ("--model-repository", str(tmp_path), "--drain-timeout-s", "600")
    with Process(*flags, "--processes", processes) as process:
        where = process.wait_for("listening")
        with channel(where) as open_channel:
            health = HealthStub(open_channel).Check(HealthCheckRequest(), timeout=PATIENCE)
            assert health.status == NOT_SERVING
        process.terminate()
        assert process.exit_code() == 0


@pytest.mark.parametrize(
    "arrangement",
    [
        pytest.param("inline", id="inline"),
        pytest.param("threads --transport aio", id="aio", marks=pytest.mark.slow),
        pytest.param("split --fronts 1", id="split"),
        pytest.param("replicas --replicas 1", id="replicas", marks=pytest.mark.slow),
    ],
)
def test_a_process_without_descriptors_left_ends_well(repository: Path, arrangement: str) -> None:
    with ready_process(repository, "--processes", *arrangement.split()) as (process, _):
        for pid in (process.pid, *children(process.pid)):
            _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, hard))
        process.terminate()
        assert process.exit_code() == 0
        process.wait_for("stopped")


def children(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").iterdir():
        # A thread may end meanwhile; those that start processes stay.
        with suppress(FileNotFoundError):
            yield from map(int, (task / "children").read_text().split())
