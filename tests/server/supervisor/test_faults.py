"""Engines that fail inside a worker process: it ends or is ended, and the server goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.worker.fatal import EXIT_CODE

from tests import models
from tests.fakes.faulty import LOSES_ONCE
from tests.server.lifecycle.process import PATIENCE, ready_process
from tests.server.serving import arrays, failure, infer_request, rows
from tests.server.supervisor.split import NOT_SERVING, SERVING, Readiness, Split, split_process

FAULTY = "tests.server.supervisor.faulty_server"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Split]:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    with split_process(repository, "--fronts", "2", module=FAULTY) as server:
        yield server
        server.process.terminate()
        assert server.process.exit_code() == 0


def ask(server: Split, *values: float) -> list[float]:
    """Return the answer to one request over a connection of its own."""
    with server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        answer = stub.ModelInfer(infer_request("scaled", rows(*values)), timeout=PATIENCE)
        found: list[float] = arrays(answer)["OUTPUT0"][:, 0].tolist()
        return found


def test_an_engine_that_is_lost_ends_its_worker_at_once_and_another_one_serves(
    server: Split,
) -> None:
    readiness = Readiness(server)
    readiness.wait_for(SERVING)
    assert failure(lambda: ask(server, LOSES_ONCE)).code() == grpc.StatusCode.UNAVAILABLE
    lost = server.process.wait_for("lost")
    assert (lost["code"], lost["cause"]) == (EXIT_CODE, "its engine failed for good")
    readiness.wait_for(NOT_SERVING)
    readiness.wait_for(SERVING)
    readiness.close()
    assert ask(server, LOSES_ONCE, 3.0) == [2 * LOSES_ONCE, 6.0]
    assert server.metrics()['inferd_restarts_total{process="worker"}'] == 1


@pytest.mark.parametrize("processes", ["inline", "threads"])
def test_an_engine_that_is_lost_in_one_process_ends_it_with_a_code_of_its_own(
    tmp_path: Path, processes: str
) -> None:
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    flags = ("--processes", processes)
    with ready_process(repository, *flags, module=FAULTY) as (process, where):
        error = failure(lambda: ask(Split(process, where), LOSES_ONCE))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert process.exit_code() == EXIT_CODE
        assert (
            "illegal memory access"
            in process.wait_for("the engine failed for good: the process ends")["error"]
        )
