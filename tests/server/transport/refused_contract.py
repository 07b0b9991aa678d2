"""Errors that have a reason are told with who called. A class per transport inherits it."""

from __future__ import annotations

import gzip
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from inferd_server.errors import InferdError, InvalidInput
from inferd_server.transport.call import Call, Caller, Refused, Routes, Stream

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Recorders, Serve
from tests.server.transport.contract import PATH, TransportContract, echo
from tests.server.transport.frames import SETTINGS, connected, request
from tests.server.transport.stream_contract import echo_stream
from tests.server.transport.unsent_contract import ANSWER, CLOSED_WINDOW, ROOM, await_unsent

STREAM, ECHO = "/test.Service/S", "/test.Service/Echo"
COMPRESSED = gzip.compress(bytes(1000))
TOO_MUCH = bytes(ROOM + 1)


class Told:
    """What a transport told: method, address and reason of each error."""

    def __init__(self) -> None:
        self._told: queue.Queue[tuple[str, str, str]] = queue.Queue()

    def of(self, method: str) -> Refused:
        def tell(caller: Caller, error: InferdError) -> None:
            self._told.put((method, caller.peer, error.reason))

        return tell

    def next(self, known: bool = True) -> tuple[str, str]:
        """Return method and reason of the next one, whose address must be known."""
        method, peer, reason = self._told.get(timeout=PATIENCE)
        assert peer.startswith("ipv4:127.0.0.1:" if known else "")
        return method, reason

    @property
    def none(self) -> bool:
        return self._told.empty()


def failing(error: InferdError) -> Callable[[Call | Stream], None]:
    return lambda call: call.fail(error)


@contextmanager
def deaf(client: Client, path: str) -> Iterator[None]:
    """A call whose answer nobody takes."""
    with connected(client.address, CLOSED_WINDOW) as connection:
        connection.await_frame(SETTINGS)
        connection.send(request(path, 1))
        await_unsent(client, len(ANSWER))
        yield


def unary(client: Client, message: bytes) -> object:
    return client.call(PATH, message)


def streamed(client: Client, message: bytes) -> object:
    answers = client.stream(STREAM, iter((message,)))
    answer = next(answers)
    answers.cancel()
    return answer


class RefusedContract(TransportContract):
    """Once each, before the caller hears of it."""

    @pytest.fixture
    def serve(self) -> Serve:
        return self.serve_with(
            max_unsent_bytes=ROOM, max_in_flight_bytes=ROOM, accept_compressed=False
        )

    @pytest.mark.parametrize(("send", "method"), [(unary, PATH), (streamed, STREAM)])
    @pytest.mark.parametrize(
        ("message", "reason"),
        [(COMPRESSED, "COMPRESSION_NOT_TAKEN"), (TOO_MUCH, "REQUEST_BYTES")],
        ids=["compressed", "too much"],
    )
    def test_requests_beyond_a_bound_are_told(
        self,
        serve: Serve,
        send: Callable[[Client, bytes], object],
        method: str,
        message: bytes,
        reason: str,
    ) -> None:
        told, streams = Told(), {STREAM: Recorders(echo_stream)}
        with serve(Routes(unary={PATH: echo}, streams=streams, refused=told.of)) as client:
            failure(lambda: send(client, message))
            assert told.next() == (method, reason)
            send(client, b"within all bounds")
            assert told.none

    def test_answers_beyond_the_bound_are_told(self, serve: Serve) -> None:
        told = Told()
        answers = Recorders(lambda stream, data: stream.send((ANSWER,)))
        unaries = {PATH: lambda call: call.reply((ANSWER,)), ECHO: echo}
        routes = Routes(unary=unaries, streams={STREAM: answers}, refused=told.of)
        with serve(routes) as client, deaf(client, PATH):
            for send, method in ((unary, PATH), (streamed, STREAM)):
                error = failure(lambda send=send: send(client, b"x"))
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert told.next() == (method, "UNSENT_BYTES")
        assert told.none

    def test_errors_of_handlers_are_told_if_they_have_a_reason(self, serve: Serve) -> None:
        told = Told()
        for error in (InvalidInput("no", reason="SOME_BOUND"), InvalidInput("no")):
            fail = failing(error)
            streams = {STREAM: Recorders(lambda stream, data, fail=fail: fail(stream))}
            with serve(Routes(unary={PATH: fail}, streams=streams, refused=told.of)) as client:
                for send, method in ((unary, PATH), (streamed, STREAM)):
                    failure(lambda send=send: send(client, b"x"))
                    assert not error.reason or told.next() == (method, "SOME_BOUND")
        assert told.none

    def test_nothing_reaches_a_receiver_once_its_stream_has_ended(self, serve: Serve) -> None:
        """What it is asked then it could not answer, nor know who asks."""
        recorders = Recorders(lambda stream, data: stream.fail(InvalidInput("no")))
        with serve(Routes(streams={STREAM: recorders})) as client:
            answers = client.stream(STREAM, iter([b"x"] * 3))
            failure(lambda: next(answers))
            recorder = recorders.next()
            recorder.over.get(timeout=PATIENCE)
            assert recorder.messages.qsize() == 1
