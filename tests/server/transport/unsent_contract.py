"""The bound on bytes of answers that nobody takes. A class per transport inherits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import grpc
import pytest
from inferd_server.errors import InvalidInput
from inferd_server.transport.call import Call, Routes
from inferd_server.transport.status import ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import Client, Held, Recorders, Serve
from tests.server.transport.contract import PATH, TransportContract, echo
from tests.server.transport.frames import (
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    connected,
    frame,
    request,
)

ROOM = 300_000
ANSWER = bytes(200_000)
STREAM, ECHO = "/test.Service/S", "/test.Service/Echo"
# INITIAL_WINDOW_SIZE, RFC 9113, 6.5.2: the answers find no room at all.
CLOSED_WINDOW = PREFACE + frame(SETTINGS, payload=b"\x00\x04" + bytes(4))
CANCEL = (8).to_bytes(4, "big")


def answering(call: Call) -> None:
    call.reply((ANSWER,))


def with_metadata(call: Call) -> None:
    call.reply((ANSWER,), (("key", "value"),))


def unsent(client: Client) -> int:
    return client.transport.bounds.answers.held


def await_unsent(client: Client, size: int) -> None:
    """Exchange calls with the server until so many bytes wait; each takes it around once."""
    answers = client.transport.bounds.answers
    for _ in range(10_000):
        if answers.held == size:
            return
        client.call(ECHO, b"x")
    raise AssertionError(f"{answers.held} bytes of answers wait, not {size}")


@contextmanager
def deaf(client: Client) -> Iterator[Connection]:
    """A connection whose caller takes no answers."""
    with connected(client.address, CLOSED_WINDOW) as connection:
        connection.await_frame(SETTINGS)
        yield connection


def opened(connection: Connection) -> None:
    window = (1 << 20).to_bytes(4, "big")
    connection.send(frame(WINDOW_UPDATE, 0, 0, window) + frame(WINDOW_UPDATE, 0, 1, window))


def reset(connection: Connection) -> None:
    connection.send(frame(RST_STREAM, 0, 1, CANCEL))


def closed(connection: Connection) -> None:
    connection.close()


class UnsentContract(TransportContract):
    """Counted from the answer until it is sent or dropped; refused beyond."""

    @pytest.fixture
    def serve(self) -> Serve:
        return self.serve_with(max_unsent_bytes=ROOM)

    @pytest.mark.parametrize("handler", [answering, with_metadata])
    @pytest.mark.parametrize("end", [opened, reset, closed])
    def test_an_answer_counts_until_it_is_taken_or_its_call_is_over(
        self, serve: Serve, handler: Callable[[Call], None], end: Callable[[Connection], None]
    ) -> None:
        with serve(Routes(unary={PATH: handler, ECHO: echo})) as client, deaf(client) as connection:
            connection.send(request(PATH, 1))
            await_unsent(client, len(ANSWER))
            end(connection)
            await_unsent(client, 0)

    def test_an_answer_that_finds_no_room_is_refused_and_its_bound_named(
        self, serve: Serve
    ) -> None:
        with serve(Routes(unary={PATH: answering, ECHO: echo})) as client:
            assert client.call(PATH) == ANSWER
            await_unsent(client, 0)
            with deaf(client) as connection:
                connection.send(request(PATH, 1))
                await_unsent(client, len(ANSWER))
                error = failure(lambda: client.call(PATH))
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
                assert dict(error.trailing_metadata())[ERROR_KEY] == "MemoryBudgetExceeded"
                assert "max_unsent_bytes" in error.details()
            await_unsent(client, 0)
            assert client.call(PATH) == ANSWER
            await_unsent(client, 0)
            assert client.transport.bounds.answers.held == 0

    def test_an_answer_alone_always_has_room(self) -> None:
        with self.serve_with(max_unsent_bytes=1024)(Routes(unary={PATH: answering})) as client:
            for _ in range(3):
                assert client.call(PATH) == ANSWER

    def test_answers_of_calls_that_are_over_do_not_count(self, serve: Serve) -> None:
        held = Held()
        with serve(Routes(unary={PATH: held, ECHO: echo})) as client:
            for _ in range(3):
                with deaf(client) as connection:
                    connection.send(request(PATH, 1))
                    call = held.next()
                while not call.cancelled:
                    client.call(ECHO, b"x")
                call.reply((ANSWER,))
                call.fail(InvalidInput("late"))
                await_unsent(client, 0)

    @pytest.mark.parametrize("end", [opened, reset, closed])
    def test_a_streams_messages_count_until_they_are_taken_or_it_is_over(
        self, serve: Serve, end: Callable[[Connection], None]
    ) -> None:
        recorders = Recorders(lambda stream, data: stream.send((ANSWER,)))
        with (
            serve(Routes(unary={ECHO: echo}, streams={STREAM: recorders})) as client,
            deaf(client) as connection,
        ):
            connection.send(request(STREAM, 1))
            await_unsent(client, len(ANSWER))
            end(connection)
            await_unsent(client, 0)

    def test_a_message_that_finds_no_room_ends_its_stream_alone(self, serve: Serve) -> None:
        recorders = Recorders(lambda stream, data: [stream.send((ANSWER,)) for _ in range(3)])
        with serve(Routes(unary={ECHO: echo}, streams={STREAM: recorders})) as client:
            with deaf(client) as connection:
                connection.send(request(STREAM, 1))
                await_unsent(client, len(ANSWER))
            await_unsent(client, 0)
            recorders.next().over.get(timeout=10)
            answers = client.stream(STREAM, iter((b"x",)))
            error = failure(lambda: list(answers))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "max_unsent_bytes" in error.details()
            await_unsent(client, 0)

    def test_memory_does_not_grow_with_answers_that_nobody_takes(self, serve: Serve) -> None:
        refused = 0
        with (
            serve(Routes(unary={PATH: answering, ECHO: echo})) as client,
            deaf(client) as connection,
        ):
            connection.send(b"".join(request(PATH, 2 * n + 1) for n in range(200)))
            await_unsent(client, len(ANSWER))
            while refused < 199:
                # Statuses need no window.
                refused += b"max_unsent_bytes" in connection.await_frame(1).payload
            assert unsent(client) == len(ANSWER)
