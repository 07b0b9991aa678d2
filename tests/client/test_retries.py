"""Which calls are made again when nobody answers, and which never."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import grpc
import numpy as np
import pytest
from inferd_client import AsyncClient, Client, errors
from inferd_client.service_config import RETRY_POLICY

from tests.fakes.flaky_server import FlakyServer

# An array, because a number would have the model asked for its datatype first.
SEVEN = np.array([7])
ATTEMPTS = RETRY_POLICY["maxAttempts"]


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED"])
def test_a_call_that_nobody_could_answer_is_made_again(code: str) -> None:
    with FlakyServer(2, grpc.StatusCode[code]) as server, Client(server.address) as client:
        assert client.infer("m", x=SEVEN)["x"].item() == 7
        assert server.calls == 3


def test_the_asyncio_client_calls_again_too() -> None:
    async def scenario(address: str) -> int:
        async with AsyncClient(address) as client:
            return int((await client.infer("m", x=SEVEN))["x"].item())

    with FlakyServer(2) as server:
        assert asyncio.run(scenario(server.address)) == 7
        assert server.calls == 3


def test_a_request_of_many_megabytes_is_made_again() -> None:
    large = np.ones(2 * 1024 * 1024)
    with FlakyServer(1) as server, Client(server.address) as client:
        np.testing.assert_array_equal(client.infer("m", x=large)["x"], large)


def test_a_server_that_never_can_is_given_up() -> None:
    with FlakyServer(100) as server, Client(server.address) as client:
        with pytest.raises(errors.Unavailable, match="not now"):
            client.infer("m", x=SEVEN)
        assert server.calls == ATTEMPTS


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "INTERNAL", "INVALID_ARGUMENT"])
def test_an_answer_that_is_an_error_is_an_answer(code: str) -> None:
    with FlakyServer(1, grpc.StatusCode[code]) as server, Client(server.address) as client:
        with pytest.raises(errors.InferdError, match="not now"):
            client.infer("m", x=SEVEN)
        assert server.calls == 1


def test_a_step_of_a_sequence_is_never_taken_twice() -> None:
    with FlakyServer(1) as server, Client(server.address) as client:
        with pytest.raises(errors.Unavailable):
            client.infer("m", parameters={"sequence_id": 5, "sequence_start": True}, x=SEVEN)
        assert server.calls == 1


@pytest.mark.parametrize("method", ["live", "ready", "status"])
def test_questions_about_now_are_asked_once(method: str) -> None:
    with FlakyServer(1) as server, Client(server.address) as client:
        with pytest.raises(errors.Unavailable):
            getattr(client, method)()
        assert server.calls == 1


@pytest.mark.parametrize("method", ["load", "unload"])
def test_changes_are_asked_for_once(method: str) -> None:
    with FlakyServer(1) as server, Client(server.address) as client:
        with pytest.raises(errors.Unavailable):
            getattr(client, method)("m")
        assert server.calls == 1


def test_a_client_without_retries_calls_once() -> None:
    with FlakyServer(1) as server, Client(server.address, retries=False) as client:
        with pytest.raises(errors.Unavailable):
            client.infer("m", x=SEVEN)
        assert server.calls == 1


@pytest.fixture
def pair() -> Iterator[list[FlakyServer]]:
    with ExitStack() as stack:
        yield [stack.enter_context(FlakyServer()) for _ in range(2)]


def target(servers: Sequence[FlakyServer]) -> str:
    return "ipv4:" + ",".join(server.address for server in servers)


def test_calls_go_to_several_addresses_in_turn(pair: list[FlakyServer]) -> None:
    with Client(target(pair), wait_for_ready=True) as client:
        # The second may be connected to later than the first.
        while not all(server.calls for server in pair):
            client.infer("m", x=SEVEN)


def test_a_client_that_checks_health_calls_only_servers_that_are_ready() -> None:
    with FlakyServer(serving=False) as away, FlakyServer(serving=True) as there:
        with Client(target([away, there]), check_health=True) as client:
            for _ in range(10):
                client.infer("m", x=SEVEN)
        assert (away.calls, there.calls) == (0, 10)


def test_a_server_that_tells_no_health_is_taken_for_ready() -> None:
    with FlakyServer() as server, Client(server.address, check_health=True) as client:
        assert client.infer("m", x=SEVEN)["x"].item() == 7


def test_a_client_that_checks_health_says_that_nobody_is_ready() -> None:
    with FlakyServer(serving=False) as away:
        client = Client(away.address, check_health=True, retries=False)
        with client, pytest.raises(errors.Unavailable, match=away.address):
            client.infer("m", x=SEVEN)
        assert away.calls == 0
