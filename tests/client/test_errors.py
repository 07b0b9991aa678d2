from __future__ import annotations

import asyncio
import pickle
import socket

import grpc
import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client import AsyncClient, Client, InferdError, errors

from tests.fakes.oip_server import OipServer

CODES = {
    "INVALID_ARGUMENT": ["InvalidInput"],
    "NOT_FOUND": ["NotFound", "ModelNotFound", "VersionNotFound", "SequenceNotFound"],
    "UNAVAILABLE": ["Unavailable", "ModelNotReady", "WorkerLost", "ShuttingDown"],
    "RESOURCE_EXHAUSTED": [
        "ResourceExhausted",
        "QueueFull",
        "WouldBeLate",
        "TooManySequences",
        "MemoryBudgetExceeded",
    ],
    "DEADLINE_EXCEEDED": ["DeadlinePassed"],
    "CANCELLED": ["Cancelled"],
    "UNAUTHENTICATED": ["Unauthenticated"],
    "PERMISSION_DENIED": ["PermissionDenied"],
    "UNIMPLEMENTED": ["Unimplemented"],
    "INTERNAL": ["EngineFailure"],
}
NAMED = [(code, name) for code, names in CODES.items() for name in names]


@pytest.fixture
def nobody() -> str:
    """Return an address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize(("code", "name"), NAMED)
def test_error_name_of_the_server_picks_the_class(
    server: OipServer, client: Client, code: str, name: str
) -> None:
    server.fail = (grpc.StatusCode[code], "what happened", name)
    with pytest.raises(InferdError) as caught:
        client.infer("m", x=1)
    assert type(caught.value).__name__ == name
    assert (caught.value.code, caught.value.message) == (code, "what happened")
    assert str(caught.value) == "what happened"
    assert caught.value.details["inferd-error"] == name


@pytest.mark.parametrize(("code", "parent"), [(code, names[0]) for code, names in CODES.items()])
def test_without_a_name_the_code_picks_the_parent(
    server: OipServer, client: Client, code: str, parent: str
) -> None:
    server.fail = (grpc.StatusCode[code], "what happened", "")
    with pytest.raises(InferdError, match="what happened") as caught:
        client.infer("m", x=1)
    assert type(caught.value).__name__ == parent


@pytest.mark.parametrize("name", ["", "QueueFull", "NoSuchError", "InferdError"])
def test_code_outside_the_tree_is_kept_and_a_name_of_another_code_ignored(
    server: OipServer, client: Client, name: str
) -> None:
    server.fail = (grpc.StatusCode.ABORTED, "what happened", name)
    with pytest.raises(InferdError) as caught:
        client.infer("m", x=1)
    assert type(caught.value) is InferdError
    assert caught.value.code == "ABORTED"


def test_asyncio_client_maps_errors_the_same_way(server: OipServer) -> None:
    server.fail = (grpc.StatusCode.RESOURCE_EXHAUSTED, "full", "QueueFull")

    async def scenario() -> None:
        async with AsyncClient(server.address) as client:
            await client.infer("m", x=1)

    with pytest.raises(errors.QueueFull, match="full"):
        asyncio.run(scenario())


def test_unreachable_server_is_named(nobody: str) -> None:
    with Client(nobody) as client, pytest.raises(errors.Unavailable, match=nobody):
        client.infer("m", x=1)


def test_unreachable_server_is_named_by_the_asyncio_client(nobody: str) -> None:
    async def scenario() -> None:
        async with AsyncClient(nobody) as client:
            await client.live()

    with pytest.raises(errors.Unavailable, match=nobody):
        asyncio.run(scenario())


def test_waiting_for_a_connection_ends_with_the_timeout(nobody: str) -> None:
    client = Client(nobody, wait_for_ready=True, timeout=0.05)
    with client, pytest.raises(errors.DeadlinePassed):
        client.infer("m", x=1)


def test_message_above_the_limit_is_refused(server: OipServer) -> None:
    client = Client(server.address, max_message_bytes=1000)
    with client, pytest.raises(errors.ResourceExhausted, match=r"larger than max.*max_message"):
        client.infer("m", x=[0] * 1000)


def test_answer_above_the_limit_names_the_setting(server: OipServer) -> None:
    server.answers["ModelMetadata"] = pb.ModelMetadataResponse(name="m" * 2000)
    client = Client(server.address, max_message_bytes=1000)
    with client, pytest.raises(errors.ResourceExhausted, match="max_message_bytes"):
        client.metadata("m")


@pytest.mark.parametrize("timeout", [float("nan"), 1e10, 1e300])
def test_a_timeout_that_grpc_cannot_keep_is_refused(server: OipServer, timeout: float) -> None:
    with pytest.raises(errors.InvalidInput, match="timeout"):
        Client(server.address, timeout=timeout)
    with Client(server.address) as client:
        with pytest.raises(errors.InvalidInput, match="timeout"):
            client.live(timeout=timeout)
        with pytest.raises(errors.InvalidInput, match="timeout"):
            client.stream([], timeout=timeout)
        with pytest.raises(errors.InvalidInput, match="timeout"):
            client.wait_until_ready(timeout)


@pytest.mark.parametrize(
    ("key", "value"),
    [("Tenant", "a"), ("a b", "a"), ("", "a"), ("grpc-x", "a"), ("a", "\n"), ("a", "é"),
     ("a-bin", "text"), ("a", b"bytes")],
)  # fmt: skip
def test_metadata_that_cannot_be_sent_is_refused(
    server: OipServer, key: str, value: str | bytes
) -> None:
    with pytest.raises(errors.InvalidInput, match="metadata"):
        Client(server.address, metadata=[(key, value)])
    with Client(server.address) as client, pytest.raises(errors.InvalidInput, match="metadata"):
        client.infer("m", metadata=[(key, value)], x=np.ones(1))


def test_metadata_that_can_be_sent_is(server: OipServer) -> None:
    with Client(server.address, metadata=[("a-bin", b"\0\xff"), ("a_.b-1", "x y")]) as client:
        client.infer("m", x=np.ones(1))
    assert (server.metadata["a-bin"], server.metadata["a_.b-1"]) == (b"\0\xff", "x y")


@pytest.mark.parametrize("name", ["\ud800", 3])
def test_a_name_that_cannot_be_sent_is_refused(server: OipServer, name: str) -> None:
    with Client(server.address) as client:
        for ask in (client.metadata, client.config, client.load, client.ready, client.statistics):
            with pytest.raises(errors.InvalidInput):
                ask(name)


def test_a_channel_closed_during_a_call_is_an_error_of_the_tree(server: OipServer) -> None:
    client = Client(server.address)
    for channel in client._channels:
        channel.close()
    with pytest.raises(errors.Cancelled, match="closed"):
        client.live()


def test_closed_client_says_so(server: OipServer) -> None:
    client = Client(server.address)
    client.close()
    with pytest.raises(errors.Cancelled, match="closed"):
        client.infer("m", x=1)
    with pytest.raises(errors.Cancelled, match="closed"):
        client.stream([])


def test_closed_asyncio_client_says_so(server: OipServer) -> None:
    async def scenario() -> None:
        client = AsyncClient(server.address)
        await client.close()
        await client.infer("m", x=1)

    with pytest.raises(errors.Cancelled, match="closed"):
        asyncio.run(scenario())


def test_error_survives_pickling() -> None:
    error = errors.QueueFull("full", details={"a": "b"})
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.message, copy.details) == (errors.QueueFull, "full", {"a": "b"})
