"""A real Redis as the second level: shared by servers, killed and stopped under their hands."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.cache import making
from inferd_server.cache.lookup import Stored
from inferd_server.cache.redis import PREFIX, RedisClient, connector
from inferd_server.cache.remote import RemoteError
from inferd_server.settings.model import CacheSettings
from redis import Redis

from tests import models
from tests.fakes.engine import FakeEngine
from tests.server.cache.cached import (
    YAML,
    ask,
    how,
    request_of,
    results,
    running_cached,
    value,
)
from tests.server.cache.redis_server import RedisServer
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running_split,
    samples,
)

SHARED = "inferd_cache_redis_available"
KEY = b"k" * 32
CONNECTIONS = 16


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def client(redis: RedisServer) -> Iterator[RedisClient]:
    made = RedisClient(connector(redis.url, "", 5.0))
    yield made
    made.close()


def serve(stack: ExitStack, folder: Path, url: str, yaml: str = YAML) -> tuple[Running, FakeEngine]:
    options = {"cache_redis_url": url, "cache_redis_timeout_ms": 2000}
    return stack.enter_context(running_cached(folder, yaml, **options))


def stored(redis: RedisServer, at_least: int) -> list[bytes]:
    """Return the keys once there are so many: they are stored after their answers are sent."""
    with Redis.from_url(redis.url) as direct:
        for _ in range(10_000):
            keys = direct.keys(PREFIX + b"*")
            assert isinstance(keys, list)
            if len(keys) >= at_least:
                return keys
    raise AssertionError(f"{len(keys)} keys")


def test_it_stores_and_finds_with_the_time_that_is_left(client: RedisClient) -> None:
    assert client.exchange([KEY], []) == ([None], "")
    assert client.exchange([], [(KEY, Stored(b"data", 60.0))]) == ([], "")
    (found,) = client.exchange([KEY], []).found
    assert found is not None
    assert found.data == b"data"
    assert 0 < found.ttl <= 60.0


def test_a_refused_write_is_no_failed_read(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as redis:
        client = RedisClient(connector(redis.url, "", 5.0))
        client.exchange([], [(KEY, Stored(b"data", 60.0))])
        with Redis.from_url(redis.url) as direct:
            direct.config_set("maxmemory", 1)
        other = b"o" * 32
        found, refused = client.exchange([KEY], [(other, Stored(b"more", 60.0))])
        assert found[0] is not None
        assert found[0].data == b"data"
        assert refused.startswith("OutOfMemoryError: ")
        client.close()


def test_a_cache_connects_before_it_is_asked(redis: RedisServer) -> None:
    settings = CacheSettings(cache_redis_url=redis.url)
    cache = making.make_cache(settings, time.monotonic, time.time)
    with Redis.from_url(redis.url) as direct:
        for _ in range(100_000):
            if len(direct.client_list()) > 1:
                break
        assert len(direct.client_list()) == 2
    cache.close()


def test_what_somebody_stored_without_an_end_is_not_used(
    redis: RedisServer, client: RedisClient
) -> None:
    with Redis.from_url(redis.url) as direct:
        direct.set(PREFIX + KEY.hex().encode(), b"data")
    assert client.exchange([KEY], []) == ([None], "")


def test_it_connects_anew_after_redis_was_away(redis: RedisServer, client: RedisClient) -> None:
    client.exchange([], [(KEY, Stored(b"data", 60.0))])
    redis.kill()
    for _ in range(2):
        with pytest.raises(RemoteError):
            client.exchange([KEY], [])
    redis.start()
    assert client.exchange([KEY], []) == ([None], "")


def test_a_password_comes_from_its_file_each_time(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    with RedisServer(tmp_path, "--requirepass", "hunter2") as redis:
        client = RedisClient(connector(redis.url, str(secret), 5.0))
        with pytest.raises(RemoteError, match="secret"):
            client.exchange([KEY], [])
        secret.write_text("squeamish\n")
        with pytest.raises(RemoteError) as refused:
            client.exchange([KEY], [])
        assert "squeamish" not in str(refused.value)
        secret.write_text("hunter2\n")
        assert client.exchange([KEY], []) == ([None], "")
        client.close()


def test_servers_share_answers_and_each_keeps_a_copy(redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, first_engine = serve(stack, tmp_path / "first", redis.url)
        second, second_engine = serve(stack, tmp_path / "second", redis.url)
        assert how(first, request_of(1.0, ident="a")) == ""
        stored(redis, 1)
        assert how(second, request_of(1.0, ident="b")) == "shared_hit"
        assert how(second, request_of(1.0, ident="c")) == "hit"
        assert value(ask(second, request_of(1.0))) == ("", [2.0])
        assert (len(first_engine.batches), len(second_engine.batches)) == (1, 0)
        assert results(second) == {"shared_hit": 1, "hit": 2}
        assert samples(second.metrics_port)[SHARED] == 1


def test_another_model_of_the_same_name_shares_nothing(redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, _ = serve(stack, tmp_path / "first", redis.url)
        options = YAML + "engine_options: {they: 'are part of it'}\n"
        second, engine = serve(stack, tmp_path / "second", redis.url, options)
        assert how(first, request_of(1.0)) == ""
        stored(redis, 1)
        assert how(second, request_of(1.0)) == ""
        assert len(engine.batches) == 1
        stored(redis, 2)


def test_a_damaged_value_is_a_miss_and_replaced(redis: RedisServer, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, _ = serve(stack, tmp_path / "first", redis.url)
        second, engine = serve(stack, tmp_path / "second", redis.url)
        assert how(first, request_of(1.0)) == ""
        (key,) = stored(redis, 1)
        with Redis.from_url(redis.url) as direct:
            direct.setrange(key, 30, b"XX")
        assert value(ask(second, request_of(1.0))) == ("", [2.0])
        assert len(engine.batches) == 1


def test_redis_killed_in_the_middle_is_a_miss_and_used_again_when_it_is_back(
    redis: RedisServer,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(making, "REST_S", 0.05)
    with ExitStack() as stack:
        server, _ = serve(stack, tmp_path / "first", redis.url)
        assert how(server, request_of(0.0)) == ""
        stored(redis, 1)
        redis.kill()
        for n in range(1, 20):
            assert value(ask(server, request_of(float(n)))) == ("", [2.0 * n])
            assert how(server, request_of(float(n))) == "hit"
        assert samples(server.metrics_port)[SHARED] == 0
        assert caplog.text.count("redis is left alone") == 1
        redis.start()
        # Each of these asks Redis, unless it rests.
        for n in range(20, 10_000):
            assert how(server, request_of(float(n))) == ""
            if samples(server.metrics_port)[SHARED]:
                break
        assert samples(server.metrics_port)[SHARED] == 1
        assert caplog.text.count("redis answers again") == 1
        assert how(server, request_of(-1.0)) == ""
        stored(redis, at_least=1)


def test_redis_that_hangs_costs_no_more_than_patience(redis: RedisServer, tmp_path: Path) -> None:
    options = {"cache_redis_url": redis.url, "cache_redis_timeout_ms": 50}
    with running_cached(tmp_path / "server", **options) as (server, _):
        assert how(server, request_of(0.0)) == ""
        redis.send(signal.SIGSTOP)
        for n in range(1, 20):
            assert value(ask(server, request_of(float(n)))) == ("", [2.0 * n])
        assert samples(server.metrics_port)[SHARED] == 0
        redis.send(signal.SIGCONT)


def test_the_fronts_of_one_server_share_answers(redis: RedisServer, tmp_path: Path) -> None:
    folder = models.repository(tmp_path, {"scaled": models.scale(2.0)}, {"scaled": YAML})
    request = infer_request("scaled", rows(1.0))
    with running_split(folder, cache_redis_url=redis.url, cache_redis_timeout_ms=2000) as server:
        assert how(server, request) == ""
        stored(redis, 1)
        for _ in range(CONNECTIONS):
            options = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(f"127.0.0.1:{server.port}", options) as channel:
                answer = GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=PATIENCE)
                assert arrays(answer)["OUTPUT0"].tolist() == [[2.0] * 4]
        found = results(server, "scaled")
        assert found["miss"] == 1
        # The other front, if the kernel gave it any connection, asked Redis once.
        assert found["hit"] + found.get("shared_hit", 0) == CONNECTIONS
        assert found.get("shared_hit", 0) <= 1
        assert samples(server.metrics_port)[SHARED] == 2
