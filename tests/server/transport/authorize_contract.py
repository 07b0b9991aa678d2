"""Calls are decided on by their metadata, before a message. A class per transport inherits it."""

from __future__ import annotations

import grpc
import pytest
from inferd_server.errors import InferdError, Unauthenticated
from inferd_server.transport.call import Caller, Routes
from inferd_server.transport.status import ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Recorders, Requests, Serve
from tests.server.transport.contract import LIMIT, PATH, TransportContract, echo

STREAM, OPEN = "/test.Service/S", "/test.Service/Echo"
KNOWN = (("who", "friend"),)


def friends(caller: Caller) -> InferdError | None:
    """Let those call who say that they are friends."""
    if ("who", "friend") in tuple(caller.metadata):
        return None
    return Unauthenticated(f"{caller.peer} is a stranger")


def broken(_: Caller) -> InferdError | None:
    raise ValueError("secret detail")


def guarded(recorders: Recorders | None = None) -> Routes:
    return Routes(
        unary={PATH: echo, OPEN: echo},
        streams={STREAM: recorders or Recorders(lambda stream, data: stream.send((data,)))},
        authorize={PATH: friends, STREAM: friends},
    )


def refused(client: Client, path: str, metadata: tuple[tuple[str, str], ...] = ()) -> grpc.RpcError:
    """Return the error of a call whose caller sends no message at all."""
    calls = client.channel.stream_unary(path)
    return failure(lambda: calls(iter(Requests()), timeout=PATIENCE, metadata=metadata))


class AuthorizeContract(TransportContract):
    """Who may not call is told so at once, and who may is served as ever."""

    @pytest.mark.parametrize("path", [PATH, STREAM])
    def test_a_stranger_is_refused_before_any_message(self, serve: Serve, path: str) -> None:
        with serve(guarded()) as client:
            error = refused(client, path)
            assert error.code() == grpc.StatusCode.UNAUTHENTICATED
            assert error.details().startswith("ipv4:127.0.0.1:")
            assert dict(error.trailing_metadata())[ERROR_KEY] == "Unauthenticated"
            assert client.call(PATH, b"x", metadata=KNOWN) == b"x"

    def test_a_stranger_never_reaches_a_handler(self, serve: Serve) -> None:
        recorders = Recorders()
        with serve(guarded(recorders)) as client:
            for _ in range(20):
                failure(lambda: client.call(PATH, bytes(LIMIT)))
                failure(lambda: list(client.stream(STREAM, iter([bytes(LIMIT)]))))
        assert recorders.made.empty()

    @pytest.mark.parametrize("size", [0, 1, LIMIT])
    def test_who_may_call_is_served(self, serve: Serve, size: int) -> None:
        with serve(guarded()) as client:
            channel = grpc.insecure_channel(
                client.address, options=[("grpc.max_receive_message_length", -1)]
            )
            with channel:
                call = channel.unary_unary(PATH)
                assert len(call(bytes(size), timeout=PATIENCE, metadata=KNOWN)) == size

    def test_a_friends_stream_is_served(self, serve: Serve) -> None:
        with serve(guarded()) as client:
            requests = Requests(b"1", b"2")
            answers = client.channel.stream_stream(STREAM)(
                iter(requests), timeout=PATIENCE, metadata=KNOWN
            )
            assert [next(answers), next(answers)] == [b"1", b"2"]
            answers.cancel()

    def test_a_method_that_is_open_asks_nobody(self, serve: Serve) -> None:
        with serve(guarded()) as client:
            assert client.call(OPEN, b"x") == b"x"

    def test_a_message_above_the_limit_is_refused_as_ever(self, serve: Serve) -> None:
        with serve(guarded()) as client:
            error = failure(lambda: client.call(PATH, bytes(LIMIT + 1), metadata=KNOWN))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert client.call(PATH, b"x", metadata=KNOWN) == b"x"

    def test_a_friend_who_goes_away_before_its_message_is_forgotten(self, serve: Serve) -> None:
        with serve(guarded()) as client:
            for _ in range(20):
                call = client.channel.stream_unary(PATH).future(iter(Requests()), metadata=KNOWN)
                call.cancel()
            assert client.call(PATH, b"x", metadata=KNOWN) == b"x"

    def test_a_friend_who_sends_no_message_is_answered(self, serve: Serve) -> None:
        with serve(guarded()) as client:
            calls = client.channel.stream_unary(PATH)
            error = failure(lambda: calls(iter(()), timeout=PATIENCE, metadata=KNOWN))
            assert error.code() in {
                grpc.StatusCode.CANCELLED,
                grpc.StatusCode.UNIMPLEMENTED,
                grpc.StatusCode.INVALID_ARGUMENT,
            }
            assert client.call(PATH, b"x", metadata=KNOWN) == b"x"

    @pytest.mark.parametrize("path", [PATH, STREAM])
    def test_a_decision_that_fails_refuses_and_tells_no_details(
        self, serve: Serve, path: str
    ) -> None:
        routes = guarded()
        routes = Routes(routes.unary, routes.streams, {PATH: broken, STREAM: broken})
        with serve(routes) as client:
            error = refused(client, path)
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "secret" not in error.details()
            assert client.call(OPEN, b"x") == b"x"
