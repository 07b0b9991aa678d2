"""A server with a store of plans: on a host that cannot run them, and on one with a fake GPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import ModelConfigRequest
from inferd.v1.server_pb2 import ModelVersionStatus, StatusRequest
from inferd.v1.server_pb2_grpc import ServerServiceStub
from inferd_engines.standard import standard_engines
from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.opener import Gpu, Wanted
from inferd_engines.tensorrt.profiles import BUCKETS, profiles_for
from inferd_engines.tensorrt.store import PlanStore
from inferd_server.repository.layout import name_of

from tests import models
from tests.engines.tensorrt.bench import PLAN, Bench
from tests.fakes.engine import DOUBLING, double
from tests.fakes.tensorrt import FakeModel
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import Running, arrays, infer_request, metrics_text, rows, running


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})


def status_of(channel: grpc.Channel) -> ModelVersionStatus:
    """Return what the server says of its one model."""
    stub = ServerServiceStub(channel)
    (found,) = stub.Status(StatusRequest(), timeout=PATIENCE).models
    return found


@pytest.mark.parametrize("processes", ["threads", "split"])
def test_a_host_without_tensorrt_serves_on_the_processor_and_the_models_say_why(
    repository: Path, tmp_path: Path, processes: str
) -> None:
    flags = ("--plan-store", str(tmp_path / "plans"), "--processes", processes)
    with ready_process(repository, *flags) as (process, where):
        with grpc.insecure_channel(f"127.0.0.1:{where['grpc_port']}") as channel:
            found = status_of(channel)
        assert found.engine == "onnxruntime/CPUExecutionProvider"
        assert "TensorRT cannot be imported" in found.engine_reason
        assert found.plan_state == "FALLBACK"
        state = 'inferd_plan_state{model="scaled",state="FALLBACK",version="1"} 1.0'
        assert state in metrics_text(where["metrics_port"])
        logged = [json.loads(line) for line in list(process.lines)]
        (refused,) = [entry for entry in logged if entry["message"] == "an engine refused"]
        assert (refused["engine"], refused["level"]) == ("TensorRT", "WARNING")


class FakeHost:
    """A fake GPU, and a builder that waits until the test lets it."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.bench.close()
        self.may_build = threading.Event()
        self.swapped = threading.Event()
        self.failure: Exception | None = None

    def find(self) -> Gpu:
        return Gpu(self.bench.library, self.bench.device)

    def build(self, store: Path, wanted: Wanted) -> None:
        assert self.may_build.wait(PATIENCE)
        if self.failure is not None:
            raise self.failure
        options = wanted.options
        profiles = profiles_for(DOUBLING, options.buckets, options.ranges, batched=True)
        self.bench.models[PLAN] = FakeModel(DOUBLING, double, profiles)
        PlanStore(store).publish(wanted.key, PLAN, {})


def call(server: Running, stop: threading.Event, failures: list[str], answers: list[int]) -> None:
    """Send requests and check the answers, until told to stop."""
    while not stop.is_set():
        try:
            answer = server.infer(infer_request("scaled", rows(3.0)))
        except grpc.RpcError as error:
            failures.append(str(error.details()))
            return
        if arrays(answer)["OUTPUT0"][0, 0] != 6:
            failures.append("a wrong answer")
        answers.append(1)


@contextmanager
def serving(host: FakeHost, repository: Path, plans: Path) -> Iterator[Running]:
    """Serve on a fake GPU; models are loaded anew as `inferd serve` does it."""
    engines = standard_engines(str(plans), host.find, host.build)
    with running(repository, engines.opener) as server:
        assert server.server is not None
        repository_of = server.server.repository

        def reload(model: Path) -> None:
            repository_of.reload(name_of(repository, model))
            host.swapped.set()

        engines.when_ended(reload)
        yield server


def test_a_plan_that_was_built_meanwhile_takes_over_without_a_failed_request(
    repository: Path, tmp_path: Path
) -> None:
    host = FakeHost()
    stop = threading.Event()
    failures: list[str] = []
    answers: list[int] = []
    with serving(host, repository, tmp_path / "plans") as server:
        before = status_of(server.channel)
        callers = [
            threading.Thread(target=call, args=(server, stop, failures, answers)) for _ in range(4)
        ]
        for caller in callers:
            caller.start()
        host.may_build.set()
        assert host.swapped.wait(PATIENCE)
        after = status_of(server.channel)
        served = len(answers)
        while len(answers) < served + 20 and not failures:
            stop.wait(0.01)
        stop.set()
        for caller in callers:
            caller.join(PATIENCE)
    assert failures == []
    assert before.engine == "onnxruntime/CPUExecutionProvider"
    assert before.engine_reason == "TensorRT: BUILDING, the plan is built meanwhile"
    assert (before.plan_state, after.plan_state) == ("BUILDING", "READY")
    assert (after.engine, after.engine_reason) == ("tensorrt/Fake GPU", "")
    assert host.bench.standin.held() == 0


def test_a_build_that_fails_is_told_without_being_asked_for(
    repository: Path, tmp_path: Path
) -> None:
    host = FakeHost()
    host.failure = BuildFailed("the parser refused")
    with serving(host, repository, tmp_path / "plans") as server:
        assert status_of(server.channel).plan_state == "BUILDING"
        host.may_build.set()
        assert host.swapped.wait(PATIENCE)
        found = status_of(server.channel)
        assert arrays(server.infer(infer_request("scaled", rows(3.0))))["OUTPUT0"][0, 0] == 6
    assert found.plan_state == "FAILED"
    assert found.engine_reason.endswith("the plan could not be built: the parser refused")


def test_batches_fit_the_buckets_of_a_plan_and_their_padding_is_counted(
    repository: Path, tmp_path: Path
) -> None:
    host = FakeHost()
    with serving(host, repository, tmp_path / "plans") as server:
        host.may_build.set()
        assert host.swapped.wait(PATIENCE)
        request = ModelConfigRequest(name="scaled")
        config = server.stub.ModelConfig(request, timeout=PATIENCE).config
        assert list(config.dynamic_batching.preferred_batch_size) == list(BUCKETS)
        assert config.platform == "tensorrt_plan"
        server.infer(infer_request("scaled", rows(1.0, 2.0, 3.0)))
        text = metrics_text(server.metrics_port)
    assert 'inferd_padding_rows_total{model="scaled",version="1"} 1.0' in text
