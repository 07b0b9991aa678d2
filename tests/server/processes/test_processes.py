"""A server of several processes as one: its end, its changes and its counters."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub

from tests import models
from tests.server.lifecycle.process import PATIENCE, Process
from tests.server.processes.split import Callers, Split, split_process
from tests.server.serving import arrays, infer_request, rows

CONNECTIONS = 8
"""So many that the kernel hands some to each of two fronts, all but surely."""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})


@pytest.fixture
def server(repository: Path) -> Iterator[Split]:
    with split_process(repository, "--fronts", "2") as server:
        yield server


def ended(pid: int) -> bool:
    """Wait for the end of a process that is not a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], PATIENCE)[0])
    finally:
        os.close(descriptor)


def test_every_process_ends_with_the_one_that_was_started(server: Split) -> None:
    pids = server.pids()
    assert sorted(pids) == ["front-0", "front-1", "worker"]
    server.process.terminate(signal.SIGKILL)
    assert all(ended(pid) for pid in pids.values())


def test_a_signal_to_all_processes_is_one_to_the_server(server: Split) -> None:
    pids = server.pids()
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    with Callers(server, 2) as callers:
        callers.answered(20)
    server.process.terminate()
    assert server.process.exit_code() == 0
    assert callers.wrong == []
    assert set(callers.codes) == {"OK"}
    assert all(ended(pid) for pid in pids.values())


def test_a_change_of_a_model_is_known_to_every_front_when_it_is_answered(
    server: Split, repository: Path
) -> None:
    models.repository(repository, {"late": models.scale(5.0)})
    channels = [server.channel() for _ in range(CONNECTIONS)]
    stubs = [GRPCInferenceServiceStub(channel) for channel in channels]
    for stub in stubs:
        assert stub.ServerLive(oip.ServerLiveRequest(), timeout=PATIENCE).live
    load = oip.RepositoryModelLoadRequest(model_name="late")
    stubs[0].RepositoryModelLoad(load, timeout=PATIENCE)
    for stub in stubs:
        answer = stub.ModelInfer(infer_request("late", rows(1.0)), timeout=PATIENCE)
        assert arrays(answer)["OUTPUT0"][0, 0] == 5
    statistics = oip.ModelStatisticsRequest(name="late")
    for stub in stubs:
        (found,) = stub.ModelStatistics(statistics, timeout=PATIENCE).model_stats
        assert found.inference_count == CONNECTIONS
        assert found.inference_stats.success.count == CONNECTIONS
    for channel in channels:
        channel.close()


def test_a_port_that_another_server_shares_among_its_fronts_is_taken(
    server: Split, repository: Path
) -> None:
    port = server.address.rpartition(":")[2]
    for processes in ("split", "inline"):
        flags = ("--model-repository", str(repository), "--processes", processes)
        with Process(*flags, "--grpc-port", port) as other:
            assert "cannot be had" in other.wait_for("cannot start")["error"]
            assert other.exit_code() == 1


def test_a_reload_under_load_costs_nobody_an_answer(server: Split, repository: Path) -> None:
    load = oip.RepositoryModelLoadRequest(model_name="scaled")
    with server.channel() as channel, Callers(server) as callers:
        stub = GRPCInferenceServiceStub(channel)
        for _ in range(5):
            callers.answered(20)
            (repository / "scaled" / "1" / "model.onnx").touch()
            stub.RepositoryModelLoad(load, timeout=PATIENCE)
        callers.answered(20)
    assert callers.wrong == []
    assert set(callers.codes) == {"OK"}


def test_restarts_are_told_before_there_are_any(server: Split) -> None:
    found = server.metrics()
    assert found['inferd_restarts_total{process="worker"}'] == 0
    assert found['inferd_restarts_total{process="front"}'] == 0


def test_a_second_signal_ends_the_server_though_a_front_answers_nothing(server: Split) -> None:
    stopped = server.kill("front-0", signal.SIGSTOP)
    server.process.terminate()
    server.process.wait_for("draining")
    server.process.terminate()
    # It waits for PATIENCE, which is less than drain_timeout_s.
    assert server.process.exit_code() == 0
    assert ended(stopped)


@pytest.mark.slow
def test_a_front_that_answers_nothing_gets_the_time_to_drain_and_no_more(
    repository: Path,
) -> None:
    # With the time for a process that is at work, it would be longer than is waited for here.
    drain = PATIENCE - 8
    with split_process(repository, "--fronts", "2", "--drain-timeout-s", str(drain)) as server:
        stopped = server.kill("front-0", signal.SIGSTOP)
        server.process.terminate()
        assert server.process.exit_code() == 0
        assert ended(stopped)
