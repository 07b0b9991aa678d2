"""Requests that wait: batches, deadlines, cancellation and full queues, with a held engine."""

from __future__ import annotations

from pathlib import Path

import grpc
import numpy as np
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError

from tests.fakes.engine import FakeEngine, double
from tests.server.inference.held import ask, held_rows, occupy, waiting
from tests.server.serving import (
    PATIENCE,
    FakeEngines,
    arrays,
    infer_request,
    rows,
    running_fake,
)


def value(future: grpc.Future) -> list[float]:
    return list(arrays(future.result(PATIENCE))["OUTPUT0"][:, 0])


def test_what_waits_runs_as_one_batch_and_each_caller_gets_its_own_rows(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        first = occupy(server, engine)
        futures = {
            (n, n + 0.5)[: n % 2 + 1]: ask(server, *(n, n + 0.5)[: n % 2 + 1]) for n in range(8)
        }
        waiting(server, 12)
        engine.release()
        assert {key: tuple(value(f)) for key, f in futures.items()} == {
            key: tuple(2 * v for v in key) for key in futures
        }
        assert value(first) == [-2.0]
        assert [batch.rows for batch in engine.batches] == [1, 12]


def test_a_batch_never_exceeds_the_models_maximum(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_batch_size=4) as (server, engine):
        occupy(server, engine)
        futures = [ask(server, n, n + 100, n + 200) for n in range(5)]
        waiting(server, 15)
        engine.release()
        assert [value(f) for f in futures] == [[2 * n, 2 * n + 200, 2 * n + 400] for n in range(5)]
        assert [batch.rows for batch in engine.batches] == [1, 3, 3, 3, 3, 3]


def test_a_cancelled_caller_frees_its_rows_at_once_and_takes_no_engine_time(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        occupy(server, engine)
        gone, stays = ask(server, 7.0, 8.0), ask(server, 9.0)
        waiting(server, 3)
        gone.cancel()
        waiting(server, 1)
        assert held_rows(server) == 2
        engine.release()
        assert value(stays) == [18.0]
        assert [batch.inputs["INPUT0"][:, 0].tolist() for batch in engine.batches] == [[-1], [9]]


def test_a_deadline_that_passes_in_the_queue_takes_no_engine_time(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        occupy(server, engine)
        late, stays = ask(server, 7.0, timeout=0.3), ask(server, 9.0)
        assert late.exception(PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        engine.release()
        assert value(stays) == [18.0]
        assert [batch.inputs["INPUT0"][:, 0].tolist() for batch in engine.batches] == [[-1], [9]]


def test_a_caller_that_goes_away_during_its_run_hurts_no_neighbour(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        first = occupy(server, engine)
        first.cancel()
        stays = ask(server, 9.0)
        waiting(server, 1)
        engine.release()
        assert value(stays) == [18.0]


def test_a_full_queue_refuses_at_once(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_batch_size=2, max_queue_rows=4) as (server, engine):
        occupy(server, engine)
        fits = [ask(server, 1.0), ask(server, 2.0, 3.0)]
        waiting(server, 3)
        error = server.refused(infer_request("fake", rows(4.0)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.trailing_metadata())["inferd-error"] == "QueueFull"
        assert "max_queue_rows" in error.details()
        engine.release()
        assert [value(f) for f in fits] == [[2.0], [4.0, 6.0]]


def test_a_request_that_no_empty_queue_could_hold_is_invalid(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_batch_size=128, max_queue_bytes=1024) as (server, _):
        error = server.refused(infer_request("fake", rows(*range(65))))
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "max_queue_bytes" in error.details()
        assert value(ask(server, *range(64))) == [2 * n for n in range(64)]


def test_bytes_fill_a_queue_too_and_the_sentence_says_so(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_batch_size=64, max_queue_bytes=1024) as (server, engine):
        occupy(server, engine)
        error = server.refused(infer_request("fake", rows(*range(64))))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "16 bytes wait or run, and 1024 bytes may (max_queue_bytes)" in error.details()


def test_a_failing_run_is_internal_without_details_and_frees_its_rows(tmp_path: Path) -> None:
    with running_fake(tmp_path) as (server, engine):
        engine.fail(EngineError("secret detail"))
        error = server.refused(infer_request("fake", rows(1.0)))
        assert error.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in error.details()
        assert dict(error.trailing_metadata())["inferd-error"] == "EngineFailure"
        assert value(ask(server, 2.0)) == [4.0]


@pytest.mark.parametrize("broken", [np.zeros((1, 4), np.float32), np.zeros(4, np.float32)])
def test_an_engine_that_returns_too_few_rows_never_gives_wrong_answers(
    tmp_path: Path, broken: Array
) -> None:
    misbehaving = False
    engines = FakeEngines(
        lambda: FakeEngine(compute=lambda i: {"OUTPUT0": broken} if misbehaving else double(i))
    )
    with running_fake(tmp_path, engines) as (server, _):
        misbehaving = True
        error = server.refused(infer_request("fake", rows(1.0, 2.0)))
        assert error.code() == grpc.StatusCode.INTERNAL
