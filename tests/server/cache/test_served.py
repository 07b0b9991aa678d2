"""The cache in a running server, on both transports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2 import ModelConfigRequest
from inferd_engines.engine import EngineError
from inferd_server.batching.inline import InlineLoop

from tests.fakes.engine import FakeEngine
from tests.server.cache.cached import (
    ask,
    await_queued,
    await_waiting,
    how,
    request_of,
    results,
    running_cached,
    statistics,
    value,
)
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    samples,
)

Served = tuple[Running, FakeEngine]
N = 64


@pytest.fixture(params=["aio", "completion queue"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    inline = InlineLoop(time.monotonic) if request.param == "completion queue" else None
    with running_cached(tmp_path, inline=inline) as found:
        yield found


def test_a_herd_of_equal_requests_is_one_execution(served: Served) -> None:
    server, engine = served
    engine.hold()
    herd = [ask(server, request_of(7.0, ident=f"caller {n}")) for n in range(N)]
    await_waiting(server, N - 1)
    engine.release()
    assert [value(future) for future in herd] == [(f"caller {n}", [14.0]) for n in range(N)]
    assert [batch.rows for batch in engine.batches] == [1]
    assert results(server) == {"miss": 1, "merged": N - 1}
    found = statistics(server)
    assert (found.success.count, found.cache_hit.count, found.cache_miss.count) == (N, N - 1, 1)
    assert found.queue.count == found.compute_infer.count == 1


def test_herds_at_full_speed_get_their_own_answers(served: Served) -> None:
    server, engine = served
    wanted = [(f"{n}", [2.0 * (n % 5)]) for n in range(400)]
    with ThreadPoolExecutor(16) as pool:
        asked = [(float(n % 5), str(n)) for n in range(400)]
        answers = pool.map(lambda a: value(ask(server, request_of(a[0], ident=a[1]))), asked)
        assert list(answers) == wanted
    assert sum(batch.rows for batch in engine.batches) == 5


def test_a_repeated_request_is_a_hit_with_its_own_id(served: Served) -> None:
    server, engine = served
    assert how(server, request_of(1.0, ident="first")) == ""
    assert how(server, request_of(1.0, ident="second")) == "hit"
    assert how(server, request_of(1.0)) == "hit"
    assert value(ask(server, request_of(1.0, ident="third"))) == ("third", [2.0])
    assert len(engine.batches) == 1
    now = samples(server.metrics_port)
    assert now["inferd_cache_entries"] == 1
    assert now["inferd_cache_bytes"] > 16
    assert now['inferd_in_flight_requests{model="fake",version="1"}'] == 0


def test_typed_and_raw_contents_are_the_same_request(served: Served) -> None:
    server, _ = served
    assert how(server, request_of(1.0, 2.0)) == ""
    typed = infer_request("fake", rows(1.0, 2.0), typed=True)
    assert how(server, typed) == "hit"
    assert how(server, infer_request("fake", rows(1.0, 2.0), version="1")) == "hit"


def test_a_request_that_asks_for_its_own_run_gets_it(served: Served) -> None:
    server, engine = served
    request = request_of(1.0)
    request.parameters["inferd_cache"].bool_param = False
    for _ in range(3):
        assert how(server, request) == ""
    assert len(engine.batches) == 3
    request.parameters["inferd_cache"].bool_param = True
    assert [how(server, request), how(server, request)] == ["", "hit"]
    request.parameters["inferd_cache"].string_param = "no"
    error = server.refused(request)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "'inferd_cache' must be true or false" in error.details()


@pytest.mark.parametrize("name", ["timeout", "who_knows"])
def test_a_parameter_that_may_change_the_answer_is_a_request_of_its_own(
    served: Served, name: str
) -> None:
    server, engine = served
    request = request_of(1.0)
    request.parameters[name].int64_param = 60_000_000
    assert [how(server, request), how(server, request)] == ["", ""]
    assert len(engine.batches) == 2


def test_an_error_is_not_kept(served: Served) -> None:
    server, engine = served
    engine.hold()
    engine.fail(EngineError("secret"))
    herd = [ask(server, request_of(1.0)) for _ in range(3)]
    await_waiting(server, 2)
    engine.release()
    codes = {future.exception(PATIENCE).code() for future in herd}
    assert codes == {grpc.StatusCode.INTERNAL}
    assert len(engine.batches) == 1
    assert value(ask(server, request_of(1.0))) == ("", [2.0])


def test_a_leader_that_goes_away_while_it_waits_leaves_the_lead_to_the_next(
    served: Served,
) -> None:
    server, engine = served
    engine.hold()
    other = ask(server, request_of(-1.0))
    assert engine.running.wait(PATIENCE)
    leader = ask(server, request_of(7.0))
    await_queued(server, 1)
    heirs = [ask(server, request_of(7.0, ident=str(n))) for n in range(2)]
    await_waiting(server, 2)
    leader.cancel()
    await_waiting(server, 1)
    engine.release()
    assert value(other) == ("", [-2.0])
    assert [value(heir) for heir in heirs] == [("0", [14.0]), ("1", [14.0])]
    assert [batch.inputs["INPUT0"][:, 0].tolist() for batch in engine.batches] == [[-1], [7]]


def test_a_followers_deadline_passes_while_the_leader_runs(served: Served) -> None:
    server, engine = served
    engine.hold()
    leader = ask(server, request_of(7.0))
    assert engine.running.wait(PATIENCE)
    hasty = ask(server, request_of(7.0), timeout=0.5)
    assert hasty.exception(PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await_waiting(server, 0)
    engine.release()
    assert value(leader) == ("", [14.0])


def test_a_follower_too_many_is_refused(tmp_path: Path) -> None:
    with running_cached(tmp_path, cache_max_waiting=1) as (server, engine):
        engine.hold()
        herd = [ask(server, request_of(7.0)) for _ in range(2)]
        await_waiting(server, 1)
        error = failure(lambda: server.infer(request_of(7.0)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "cache_max_waiting" in error.details()
        engine.release()
        assert [value(future) for future in herd] == [("", [14.0])] * 2


def test_without_room_nothing_is_kept_and_herds_are_still_merged(tmp_path: Path) -> None:
    with running_cached(tmp_path, cache_bytes=0) as (server, engine):
        engine.hold()
        herd = [ask(server, request_of(7.0)) for _ in range(5)]
        await_waiting(server, 4)
        engine.release()
        assert [value(future) for future in herd] == [("", [14.0])] * 5
        assert how(server, request_of(7.0)) == ""
        assert len(engine.batches) == 2


def test_the_configuration_tells_that_answers_are_kept(served: Served) -> None:
    server, _ = served
    answer = server.stub.ModelConfig(ModelConfigRequest(name="fake"), timeout=PATIENCE)
    assert answer.config.response_cache.enable


def test_no_answer_names_another_version(served: Served) -> None:
    server, _ = served
    for _ in range(2):
        answer = server.infer(request_of(1.0, 2.0))
        assert (answer.model_name, answer.model_version) == ("fake", "1")
        assert arrays(answer)["OUTPUT0"].tolist() == [[2.0] * 4, [4.0] * 4]


def test_a_follower_that_goes_away_is_forgotten_at_once(served: Served) -> None:
    server, engine = served
    engine.hold()
    leader = ask(server, request_of(7.0))
    assert engine.running.wait(PATIENCE)
    gone, stays = ask(server, request_of(7.0)), ask(server, request_of(7.0))
    await_waiting(server, 2)
    gone.cancel()
    await_waiting(server, 1)
    engine.release()
    assert [value(leader), value(stays)] == [("", [14.0])] * 2


def test_a_model_whose_answers_are_kept_has_a_thread(tmp_path: Path) -> None:
    # Another thread may admit its requests, which wakes no transport.
    inline = InlineLoop(time.monotonic)
    with running_cached(tmp_path, inline=inline, processes="inline") as (server, _):
        assert server.server is not None
        assert server.server.repository.resolve("fake", "").arrangement == "threads"
        assert how(server, request_of(1.0)) == ""
