"""Timeouts, priorities and deadlines, from the request to the engine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from inferd.oip.v2.inference_pb2 import ModelInferRequest

from tests import models
from tests.fakes.engine import FakeEngine
from tests.server.inference.held import occupy, waiting
from tests.server.monitoring.timing import samples
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running,
    running_fake,
    running_split,
)

LONG = 3600.0
FAKE_ROW = ((np.dtype(np.float32), (4,)),)
SLOW = 400_000
"""Rounds that take more than SHORT seconds anywhere."""
SHORT = 0.1


def request_of(value: float, **parameters: int) -> ModelInferRequest:
    request = infer_request("fake", rows(value))
    for name, number in parameters.items():
        request.parameters[name].int64_param = number
    return request


class Held:
    """A server whose engine runs nothing before the test lets it."""

    def __init__(self, server: Running, engine: FakeEngine) -> None:
        self.server = server
        self.engine = engine

    def send(self, request: ModelInferRequest) -> grpc.Future:
        return self.server.stub.ModelInfer.future(request, timeout=PATIENCE)

    def late(self) -> dict[str, float]:
        """Return how many requests missed their deadline, by where, as /metrics tells."""
        return dict(samples(self.server, "inferd_deadline_misses_total"))

    def values(self) -> list[float]:
        """Return the first element of every row that ran, in order, but for the first run's."""
        ran = [batch.inputs["INPUT0"] for batch in self.engine.batches]
        return [float(row[0]) for inputs in ran for row in inputs if row[0] >= 0]

    def knows(self, rows: int, seconds: float) -> None:
        """Let the server have learned what runs take, from two of them."""
        assert self.server.server is not None
        handle = self.server.server.repository.resolve("fake", "")
        for _ in range(2):
            handle.forecast.costs.learn(FAKE_ROW, rows, seconds, time.monotonic())


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    (tmp_path / "fake").mkdir()
    yaml = "max_batch_size: 1\npriority_levels: 3\npriority_head_start_ms: 60000\n"
    (tmp_path / "fake" / "model.yaml").write_text(yaml)
    with running_fake(tmp_path) as (server, engine):
        yield Held(server, engine)


def details(error: grpc.RpcError) -> tuple[ErrorInfo, RetryInfo]:
    status = Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info, retry = ErrorInfo(), RetryInfo()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(retry)
    return info, retry


def test_a_timeout_is_answered_while_the_engine_is_busy_and_never_reaches_it(held: Held) -> None:
    busy = occupy(held.server, held.engine)
    late = held.send(request_of(7.0, timeout=20_000))
    error = late.exception(PATIENCE)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not busy.done()
    held.engine.release()
    assert arrays(busy.result(PATIENCE))["OUTPUT0"][0, 0] == -2
    held.server.infer(request_of(1.0))
    assert held.values() == [1.0]


def test_a_request_that_runs_at_its_timeout_is_answered_then_and_once(held: Held) -> None:
    held.engine.hold()
    late = held.send(request_of(7.0, timeout=20_000))
    assert held.engine.running.wait(PATIENCE)
    assert late.exception(PATIENCE).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    held.engine.release()
    # Its rows are free again, which the end of the test looks at.
    assert arrays(held.server.infer(request_of(2.0)))["OUTPUT0"][0, 0] == 4


def test_a_timeout_of_ages_does_not_keep_others_from_theirs(held: Held) -> None:
    busy = occupy(held.server, held.engine)
    patient = held.send(request_of(3.0, timeout=2**63 - 1))
    waiting(held.server, 1)
    late = held.send(request_of(7.0, timeout=20_000))
    assert late.exception(PATIENCE).code() is grpc.StatusCode.DEADLINE_EXCEEDED
    held.engine.release()
    busy.result(PATIENCE)
    assert arrays(patient.result(PATIENCE))["OUTPUT0"][0, 0] == 6


def test_priorities_decide_who_is_next(held: Held) -> None:
    busy = occupy(held.server, held.engine)
    sent = []
    for value, priority in ((3.0, 3), (2.0, 2), (1.0, 1), (2.5, 0), (2.7, 4)):
        sent.append(held.send(request_of(value, priority=priority)))
        waiting(held.server, len(sent))
    held.engine.release()
    for call in (busy, *sent):
        call.result(PATIENCE)
    # 0, and what the model does not have, stand for the middle one.
    assert held.values() == [1.0, 2.0, 2.5, np.float32(2.7), 3.0]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [({"priority": -1}, "priority is -1"), ({"timeout": -1}, "timeout is -1")],
)
def test_what_cannot_be_meant_is_refused(
    held: Held, parameters: dict[str, int], words: str
) -> None:
    error = held.server.refused(request_of(1.0, **parameters))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert words in str(error.details())


def test_a_deadline_that_no_run_can_meet_is_refused_at_the_door(held: Held) -> None:
    held.knows(1, LONG)
    error = held.server.refused(request_of(1.0))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    info, _ = details(error)
    assert info.reason == "DEADLINE_TOO_SHORT"
    assert held.values() == []


def test_who_would_wait_beyond_the_deadline_is_refused_with_the_time_to_wait(held: Held) -> None:
    busy = occupy(held.server, held.engine)
    held.knows(1, PATIENCE * 0.75)
    error = held.server.refused(request_of(1.0))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info, retry = details(error)
    assert info.reason == "WOULD_BE_LATE"
    assert 0 < retry.retry_delay.ToMilliseconds() <= PATIENCE * 750
    pushback = dict(error.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) == retry.retry_delay.ToMilliseconds()
    held.engine.release()
    busy.result(PATIENCE)
    assert held.values() == []


def test_a_model_may_refuse_whoever_would_wait_too_long(tmp_path: Path) -> None:
    with running_fake(tmp_path, max_queue_wait_ms=1000) as (server, engine):
        held = Held(server, engine)
        busy = occupy(held.server, held.engine)
        held.knows(1, 5.0)
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.ModelInfer(request_of(1.0))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "max_queue_wait_ms allows 1e+03 ms" in str(caught.value.details())
        engine.release()
        busy.result(PATIENCE)


@pytest.mark.parametrize("start", [running, running_split])
def test_requests_with_timeouts_and_priorities_are_answered_everywhere(
    tmp_path: Path, start: object
) -> None:
    yaml = {"scaled": "priority_levels: 2\n"}
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)}, yaml)
    done = threading.Barrier(4, timeout=PATIENCE)

    def call(server: Running, value: float, found: dict[float, float]) -> None:
        for _ in range(50):
            request = infer_request("scaled", rows(value))
            request.parameters["priority"].int64_param = 1 + int(value) % 2
            request.parameters["timeout"].int64_param = 20_000_000
            found[value] = arrays(server.infer(request))["OUTPUT0"][0, 0]
        done.wait()

    with start(folder) as server:  # type: ignore[operator]
        found: dict[float, float] = {}
        callers = [
            threading.Thread(target=call, args=(server, value, found)) for value in (1.0, 2.0, 3.0)
        ]
        for caller in callers:
            caller.start()
        done.wait()
    assert found == {1.0: 2.0, 2.0: 4.0, 3.0: 6.0}


@pytest.fixture(scope="module", params=[running, running_split], ids=["one process", "split"])
def rounds(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    """A model whose requests say how long they take."""
    yaml = {"rounds": "max_batch_size: 0\n"}
    folder = tmp_path_factory.mktemp("models")
    with request.param(models.repository(folder, {"rounds": models.rounds()}, yaml)) as server:
        yield server


def rounds_of(count: int, **parameters: int) -> ModelInferRequest:
    request = infer_request("rounds", {"ROUNDS": np.array([count], np.int64)})
    for name, number in parameters.items():
        request.parameters[name].int64_param = number
    return request


def test_slow_runs_that_are_over_refuse_nobody_for_long(rounds: Running) -> None:
    for _ in range(3):
        rounds.infer(rounds_of(SLOW))
    until, served = time.monotonic() + PATIENCE, 0
    while served < 3:
        call = rounds.stub.ModelInfer.future(rounds_of(1), timeout=SHORT)
        error = call.exception(PATIENCE)
        served = 0 if error else served + 1
        assert time.monotonic() < until, "refused for ever"


@pytest.mark.parametrize("of", ["call", "request"])
def test_a_deadline_teaches_what_runs_take_whoever_sets_it(rounds: Running, of: str) -> None:
    until, reason = time.monotonic() + PATIENCE, ""
    while reason != "DEADLINE_TOO_SHORT":
        request = rounds_of(SLOW, **({} if of == "call" else {"timeout": int(SHORT * 1e6)}))
        call = rounds.stub.ModelInfer.future(request, timeout=SHORT if of == "call" else PATIENCE)
        error = call.exception(PATIENCE)
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED or "wait" in error.details()
        # What ended here by itself has no details of the server's.
        told = "grpc-status-details-bin" in dict(error.trailing_metadata() or ())
        reason = details(error)[0].reason if told else ""
        assert time.monotonic() < until, "nobody is refused"


def test_deadlines_that_are_missed_count_by_where_they_were(held: Held) -> None:
    running = occupy(held.server, held.engine)
    waits = held.send(request_of(7.0, timeout=20_000))
    assert waits.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert held.late() == {"arrival": 0, "queue": 1, "reply": 0}
    refused = held.server.stub.ModelInfer.future(request_of(7.0, timeout=1), timeout=PATIENCE)
    assert refused.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert held.late() == {"arrival": 1, "queue": 1, "reply": 0}
    held.engine.release()
    running.result()
    held.engine.hold()
    runs = held.send(request_of(8.0, timeout=500_000))
    assert held.engine.running.wait(PATIENCE)
    assert runs.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert held.late() == {"arrival": 1, "queue": 1, "reply": 1}
