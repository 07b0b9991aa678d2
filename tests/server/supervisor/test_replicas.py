"""Replicas as one server: changes, counters, regions and logs, and what happens when one dies."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.fakes.faulty import GATE, ONLY_ONCE
from tests.server.lifecycle.process import PATIENCE
from tests.server.serving import arrays, failure, infer_request, rows
from tests.server.supervisor.split import SERVING, Callers, Readiness, Split, split_process

CONNECTIONS = 8
"""So many that the kernel hands some to each of two replicas, all but surely."""
FAULTY = "tests.server.supervisor.faulty_server"
RESTARTS = 'inferd_restarts_total{process="replica"}'
REPLICAS = ("replicas", "--replicas", "2")


class Replicas:
    """A server of two replicas, its repository, and a connection to each of them."""

    def __init__(self, server: Split, repository: Path, connections: ExitStack) -> None:
        self.split = server
        self.process = server.process
        self.repository = repository
        self._connections = connections

    def stubs(self) -> list[GRPCInferenceServiceStub]:
        """Return new connections to all replicas, some of them to the same."""
        channels = [self.split.channel() for _ in range(CONNECTIONS)]
        for channel in channels:
            self._connections.callback(channel.close)
        return [GRPCInferenceServiceStub(channel) for channel in channels]

    def add(self, name: str, factor: float, yaml: str = "") -> None:
        models.repository(
            self.repository, {name: models.scale(factor)}, {name: yaml} if yaml else {}
        )

    def load(self, name: str, config: str = "") -> None:
        request = oip.RepositoryModelLoadRequest(model_name=name)
        if config:
            request.parameters["config"].string_param = config
        self.stubs()[0].RepositoryModelLoad(request, timeout=PATIENCE)

    def unload(self, name: str) -> None:
        request = oip.RepositoryModelUnloadRequest(model_name=name)
        self.stubs()[0].RepositoryModelUnload(request, timeout=PATIENCE)

    def answers(self, name: str) -> set[float]:
        """Return what all replicas answer to 1.0."""
        found = [
            stub.ModelInfer(infer_request(name, rows(1.0)), timeout=PATIENCE)
            for stub in self.stubs()
        ]
        return {float(arrays(answer)["OUTPUT0"][0, 0]) for answer in found}

    def states(self, name: str) -> set[tuple[str, str]]:
        """Return what all replicas tell of a model: its states and their reasons."""
        found = [stub.RepositoryIndex(oip.RepositoryIndexRequest()) for stub in self.stubs()]
        return {(m.state, m.reason) for index in found for m in index.models if m.name == name}

    def codes(self, name: str) -> set[str]:
        """Return the statuses with which all replicas refuse a model."""
        errors = [
            failure(lambda s=stub: s.ModelInfer(infer_request(name, rows(1.0)), timeout=PATIENCE))
            for stub in self.stubs()
        ]
        return {error.code().name for error in errors}

    def kill(self, index: int) -> None:
        """Kill a replica and wait until the next one takes calls."""
        name = f"replica-{index}"
        self.split.kill(name)
        assert self.process.wait_for("listening again")["child"] == name


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Split, Path]]:
    folder = tmp_path_factory.mktemp("models")
    models.repository(folder, {"scaled": models.scale(2.0)})
    with split_process(folder, "--processes", *REPLICAS, module=FAULTY) as server:
        yield server, folder
        pids = server.pids().values()
        server.process.terminate()
        assert server.process.exit_code() == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.fixture
def server(started: tuple[Split, Path]) -> Iterator[Replicas]:
    """The one server of this module: what a test loads, it takes away again."""
    split, folder = started
    with ExitStack() as connections:
        yield Replicas(split, folder, connections)
    with ExitStack() as connections:
        made = Replicas(split, folder, connections)
        for each in folder.iterdir():
            if each.name != "scaled":
                shutil.rmtree(each)
        stub = made.stubs()[0]
        index = stub.RepositoryIndex(oip.RepositoryIndexRequest(ready=True), timeout=PATIENCE)
        for name in {each.name for each in index.models} - {"scaled"}:
            made.unload(name)


def test_what_is_loaded_or_unloaded_is_so_in_every_replica_when_it_is_answered(
    server: Replicas,
) -> None:
    assert server.codes("late") == {"NOT_FOUND"}
    server.add("late", 5.0)
    server.load("late")
    assert server.answers("late") == {5.0}
    for stub in server.stubs():
        (found,) = stub.ModelStatistics(
            oip.ModelStatisticsRequest(name="late"), timeout=PATIENCE
        ).model_stats
        assert found.inference_stats.success.count == CONNECTIONS
        assert found.inference_count == CONNECTIONS
    counted = server.split.metrics()
    assert counted['inferd_requests_total{code="OK",model="late",version="1"}'] == CONNECTIONS
    server.unload("late")
    assert server.states("late") == {("UNAVAILABLE", "unloaded")}
    assert server.codes("late") == {"NOT_FOUND"}


def test_a_load_that_one_replica_refuses_changes_none(server: Replicas) -> None:
    server.add(ONLY_ONCE, 5.0)
    error = failure(lambda: server.load(ONLY_ONCE))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "another process has it" in error.details()
    assert {state for state, _ in server.states(ONLY_ONCE)} == {"UNAVAILABLE"}
    assert server.codes(ONLY_ONCE) == {"UNAVAILABLE"}
    # Neither is a version replaced that serves.
    (server.repository / "scaled" / "1" / "model.onnx").rename(
        server.repository / "scaled" / "1" / "kept"
    )
    assert failure(lambda: server.load("scaled")).code() == grpc.StatusCode.UNAVAILABLE
    assert server.answers("scaled") == {2.0}
    (server.repository / "scaled" / "1" / "kept").rename(
        server.repository / "scaled" / "1" / "model.onnx"
    )
    server.load("scaled")


def test_a_replica_that_dies_while_a_load_is_under_way_changes_no_other(
    server: Replicas,
) -> None:
    server.add("late", 5.0)
    gate = server.repository / "late" / "1" / GATE
    os.mkfifo(gate)
    load = server.stubs()[0].RepositoryModelLoad.future(
        oip.RepositoryModelLoadRequest(model_name="late"), timeout=PATIENCE
    )
    # Returns once a replica is about to open it.
    with gate.open("wb"):
        assert server.process.wait_for("loading")["model"] in {"scaled", "late"}
        opening = next(
            json.loads(line)["part"]
            for line in reversed(list(server.process.lines))
            if '"loading"' in line and '"late"' in line
        )
        gate.rename(gate.with_name("open"))
        server.kill(int(opening.rpartition("-")[2]))
    assert failure(load.result).code() == grpc.StatusCode.UNAVAILABLE
    server.load("late")
    assert server.answers("late") == {5.0}


def test_a_new_replica_has_what_the_others_have_before_it_takes_calls(server: Replicas) -> None:
    server.add("late", 5.0)
    server.add("gone", 6.0)
    server.load("late", config='{"max_batch_size": 3}')
    server.load("gone")
    server.unload("gone")
    memory = SharedMemory(create=True, size=64)
    try:
        (stub, *_) = server.stubs()
        stub.SystemSharedMemoryRegister(
            oip.SystemSharedMemoryRegisterRequest(name="r", key=memory.name, byte_size=64)
        )
        change = oip.LogSettingsRequest()
        change.settings["log_verbose_level"].uint32_param = 1
        stub.LogSettings(change, timeout=PATIENCE)
        for index in (0, 1):
            server.kill(index)
        assert server.answers("late") == {5.0}
        assert server.codes("gone") == {"NOT_FOUND"}
        for stub in server.stubs():
            config = stub.ModelConfig(oip.ModelConfigRequest(name="late"), timeout=PATIENCE)
            assert config.config.max_batch_size == 3
            regions = stub.SystemSharedMemoryStatus(oip.SystemSharedMemoryStatusRequest()).regions
            assert set(regions) == {"r"}
            logs = stub.LogSettings(oip.LogSettingsRequest()).settings
            assert logs["log_verbose_level"].uint32_param == 1
        stub.SystemSharedMemoryUnregister(oip.SystemSharedMemoryUnregisterRequest(name="r"))
    finally:
        memory.close()
        memory.unlink()


def test_a_region_that_cannot_be_opened_is_known_to_no_replica(server: Replicas) -> None:
    (stub, *_) = server.stubs()
    register = oip.SystemSharedMemoryRegisterRequest(name="r", key="/not-there", byte_size=1)
    error = failure(lambda: stub.SystemSharedMemoryRegister(register, timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    for each in server.stubs():
        assert not each.SystemSharedMemoryStatus(oip.SystemSharedMemoryStatusRequest()).regions


def test_a_model_with_sequences_is_refused_where_it_is_loaded(server: Replicas) -> None:
    server.add("talks", 2.0, "sequence: {}\n")
    error = failure(lambda: server.load("talks"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert "--processes split serves it" in error.details()


def test_what_was_put_into_the_repository_is_served_by_all_or_none_after_a_death(
    server: Replicas,
) -> None:
    server.add("found", 7.0)
    assert server.codes("found") == {"NOT_FOUND"}
    server.kill(1)
    assert server.answers("found") == {7.0}


def test_a_replica_that_finds_no_repository_takes_no_calls_until_it_is_back(
    server: Replicas,
) -> None:
    kept = server.repository.rename(server.repository.with_name("away"))
    try:
        server.split.kill("replica-0")
        server.process.wait_for("a replica has other models than the rest")
        assert server.split.metrics()["inferd_ready"] == 1
        assert server.answers("scaled") == {2.0}
    finally:
        kept.rename(server.repository)
    assert server.process.wait_for("listening again")["child"] == "replica-0"
    assert server.answers("scaled") == {2.0}


def test_replicas_that_all_die_answer_for_their_health_and_come_back(server: Replicas) -> None:
    server.add("late", 5.0)
    server.load("late")
    readiness = Readiness(server.split)
    readiness.wait_for(SERVING)
    for name in ("replica-0", "replica-1"):
        server.split.kill(name)
    for _ in range(2):
        server.process.wait_for("listening again")
    readiness.wait_for(SERVING)
    readiness.close()
    assert server.answers("late") == {5.0}


def kill_replicas(server: Replicas, times: int) -> None:
    restarts = server.split.metrics()[RESTARTS]
    with Callers(server.split) as callers:
        for turn in range(times):
            callers.answered(20)
            server.kill(turn % 2)
            assert server.split.metrics()["inferd_ready"] == 1
        callers.answered(50)
    assert callers.wrong == []
    assert set(callers.codes) <= {"OK", "UNAVAILABLE"}
    found = server.split.metrics()
    assert found[RESTARTS] == restarts + times
    assert found['inferd_in_flight_requests{model="scaled",version="1"}'] == 0


def test_a_killed_replica_costs_nobody_a_wrong_answer_or_a_hung_call(server: Replicas) -> None:
    kill_replicas(server, 2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_replicas_that_are_killed_a_hundred_times(server: Replicas) -> None:
    kill_replicas(server, 100)
