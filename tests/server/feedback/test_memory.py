"""Tokens count once: in a process, and with Redis in all servers that share it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_server.cache.redis import connector
from inferd_server.feedback.memory import FAILURES, REST_S, LocalMemory, RedisMemory

from tests.fakes.clock import FakeClock
from tests.server.cache.redis_server import RedisServer

A, B, C = b"a" * 12, b"b" * 12, b"c" * 12
PATIENCE_S = 5.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def memory(redis: RedisServer, clock: FakeClock) -> RedisMemory:
    return RedisMemory(connector(redis.url, "", PATIENCE_S), 60.0, clock, LocalMemory())


def test_a_process_remembers_the_tokens_that_it_saw() -> None:
    local = LocalMemory()
    assert local.first([A, B, A]) == [True, True, False]
    assert local.first([B, C]) == [False, True]


def test_what_a_process_remembers_is_bounded_and_the_oldest_goes() -> None:
    local = LocalMemory(most=2)
    local.first([A, B, C])
    assert local.first([C]) == [False]
    assert local.first([A]) == [True]


def test_servers_that_share_a_redis_take_a_token_once(redis: RedisServer) -> None:
    first, second = memory(redis, FakeClock()), memory(redis, FakeClock())
    assert first.first([A, B]) == [True, True]
    assert second.first([A, C, B, C]) == [False, True, False, False]
    first.close()
    second.close()


def test_a_restarted_server_finds_what_came_before_in_redis(redis: RedisServer) -> None:
    before = memory(redis, FakeClock())
    before.first([A])
    before.close()
    after = memory(redis, FakeClock())
    assert after.first([A]) == [False]
    after.close()


def test_without_redis_a_process_goes_on_by_itself_and_says_so(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    shared = memory(redis, clock)
    redis.kill()
    with caplog.at_level(logging.INFO):
        for ident in (A, B, C):
            assert shared.first([ident, ident]) == [True, False]
        assert shared.first([A]) == [False]
        redis.start()
        clock.advance(REST_S)
        assert shared.first([b"d" * 12]) == [True]
    assert FAILURES == 3
    assert [record.message for record in caplog.records] == [
        "redis is left alone; doubled feedback is noticed in one process only",
        "redis answers again; doubled feedback is noticed everywhere",
    ]
    shared.close()
