"""Calls of a connection that are over count no more. A class per transport inherits it."""

from __future__ import annotations

import gc
import queue
import threading
from collections.abc import Callable, Iterator

import grpc
import pytest
from inferd_server.errors import InvalidInput
from inferd_server.transport.call import Call, Routes, Stream

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Recorder
from tests.server.transport.contract import PATH, TransportContract, echo
from tests.server.transport.frames import connected, request

STREAM, REFUSE, HOLD = "/test.Service/S", "/test.Service/Refuse", "/test.Service/Hold"
MANY = 4000
kept: list[Call] = []


def refuse(call: Call) -> None:
    call.fail(InvalidInput("no"))


def hold(call: Call) -> None:
    """Keep the call, as a queue does, also after its end."""
    kept.append(call)


class Finishing(Recorder):
    """Answers each message, and ends with its caller."""

    def half_closed(self) -> None:
        self.stream.finish()


def open_stream(stream: Stream) -> Recorder:
    return Finishing(stream, lambda stream, data: stream.send((data,)))


ROUTES = Routes({PATH: echo, REFUSE: refuse, HOLD: hold}, {STREAM: open_stream})


def answered(client: Client) -> None:
    assert client.call(PATH, b"x") == b"x"


def refused(client: Client) -> None:
    assert failure(lambda: client.call(REFUSE)).code() == grpc.StatusCode.INVALID_ARGUMENT


def expired(client: Client) -> None:
    error = failure(lambda: client.unary(HOLD)(b"", timeout=0.002))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def cancelled(client: Client) -> None:
    client.unary(HOLD).future(b"").cancel()


def without_message(client: Client) -> None:
    method = client.channel.stream_unary(PATH)
    # grpc.aio leaves such a call without an answer.
    failure(lambda: method(iter(()), timeout=0.01))


def streamed(client: Client) -> None:
    assert list(client.stream(STREAM, iter((b"1", b"2")))) == [b"1", b"2"]


def cancelled_stream(client: Client) -> None:
    answers = client.stream(STREAM, iter((b"1",)))
    assert next(answers) == b"1"
    answers.cancel()


def expired_stream(client: Client) -> None:
    waiting = threading.Event()
    method = client.channel.stream_stream(STREAM)
    error = failure(lambda: list(method(iter(waiting.wait, True), timeout=0.002)))
    waiting.set()
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED


ENDS = [
    answered, refused, expired, cancelled, without_message,
    streamed, cancelled_stream, expired_stream,
]  # fmt: skip


class LimitContract(TransportContract):
    """`max_concurrent_streams` bounds what is open, and nothing else."""

    @pytest.fixture(autouse=True)
    def no_collector(self) -> Iterator[None]:
        """Whatever is in a reference cycle stays."""
        gc.collect()
        gc.disable()
        try:
            yield
        finally:
            gc.enable()
            kept.clear()

    @pytest.mark.parametrize("limit", [1, 16, pytest.param(100, marks=pytest.mark.slow)])
    @pytest.mark.parametrize("end", ENDS)
    def test_ended_calls_make_room_for_others(
        self, limit: int, end: Callable[[Client], None]
    ) -> None:
        with self.serve_with(max_concurrent_streams=limit)(ROUTES) as client:
            for _ in range(3 * limit + 10):
                end(client)
            answered(client)

    @pytest.mark.parametrize("limit", [1, 16, 100])
    def test_more_calls_at_once_than_a_connection_may_have_are_all_answered(
        self, limit: int
    ) -> None:
        with self.serve_with(max_concurrent_streams=limit)(ROUTES) as client:
            answered(client)
            for _ in range(3):
                futures = [client.unary(PATH).future(b"x") for _ in range(4 * limit)]
                assert {future.result(PATIENCE) for future in futures} == {b"x"}

    def test_no_call_is_dropped_because_many_arrive_at_once(self) -> None:
        seen: queue.Queue[bytes] = queue.Queue()
        working, told = threading.Event(), threading.Event()

        def handler(call: Call) -> None:
            if not working.is_set():
                working.set()
                assert told.wait(PATIENCE)
            seen.put(call.request)
            call.reply((b"",))

        serve = self.serve_with(max_concurrent_streams=0)
        with serve(Routes({PATH: handler})) as client, connected(client.address) as connection:
            connection.send(request(PATH, 1, b"0"))
            assert working.wait(PATIENCE)
            calls = [request(PATH, 2 * n + 1, b"%d" % n) for n in range(1, MANY)]
            sending = threading.Thread(target=connection.send, args=(b"".join(calls),))
            sending.start()
            told.set()
            expected = {b"%d" % n for n in range(MANY)}
            assert {seen.get(timeout=PATIENCE) for _ in range(MANY)} == expected
            sending.join(PATIENCE)
