"""The bound on bytes of requests without an answer. A class per transport inherits it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import grpc
import pytest
from inferd_server.errors import InvalidInput
from inferd_server.transport.call import Call, Routes
from inferd_server.transport.status import ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import PATIENCE, Client, Held, Recorders, Requests, Serve
from tests.server.transport.contract import PATH, TransportContract, echo
from tests.server.transport.stream_contract import echo_stream

ROOM = 10_000
MORE_THAN_HALF = bytes(6_000)
STREAM, ECHO, BROKEN = "/test.Service/S", "/test.Service/Echo", "/test.Service/Broken"


def broken(call: Call) -> None:
    raise ValueError("broken")


def replied(future: grpc.Future, call: Call) -> None:
    call.reply((b"",))
    assert future.result(PATIENCE) == b""


def failed(future: grpc.Future, call: Call) -> None:
    call.fail(InvalidInput("no"))
    call.reply((b"too late",))
    assert future.exception(PATIENCE).code() == grpc.StatusCode.INVALID_ARGUMENT


def cancelled(future: grpc.Future, call: Call) -> None:
    told = threading.Event()
    call.on_cancel(told.set)
    future.cancel()
    assert told.wait(PATIENCE)
    call.reply((b"too late",))


def abandoned(future: grpc.Future, call: Call) -> None:
    """Cancelled, and never answered by the handler."""
    told = threading.Event()
    call.on_cancel(told.set)
    future.cancel()
    assert told.wait(PATIENCE)


def assert_all_free(client: Client) -> None:
    """Twice, because room that was given back twice would show in the second call."""
    for _ in range(2):
        assert len(client.call(ECHO, bytes(ROOM))) == ROOM
        assert_never(failure(lambda: client.call(ECHO, bytes(ROOM + 1))))


def assert_never(error: grpc.RpcError) -> None:
    """Refused with a status that nobody repeats: no later call finds more room."""
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "max_in_flight_bytes" in error.details()


def assert_refused(client: Client, request: bytes) -> None:
    error = failure(lambda: client.call(ECHO, request))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(error.trailing_metadata())[ERROR_KEY] == "MemoryBudgetExceeded"
    assert "max_in_flight_bytes" in error.details()


class InFlightContract(TransportContract):
    """Refused at once above the bound, and counted exactly."""

    @pytest.fixture
    def serve(self) -> Serve:
        return self.serve_with(max_in_flight_bytes=ROOM)

    @pytest.mark.parametrize("end", [replied, failed, cancelled, abandoned])
    def test_a_call_holds_its_bytes_until_it_ends(
        self, serve: Serve, end: Callable[[grpc.Future, Call], None]
    ) -> None:
        held = Held()
        with serve(Routes(unary={PATH: held, ECHO: echo})) as client:
            for _ in range(3):
                future = client.unary(PATH).future(MORE_THAN_HALF)
                call = held.next()
                assert_refused(client, MORE_THAN_HALF)
                assert len(client.call(ECHO, bytes(ROOM - len(MORE_THAN_HALF)))) == 4_000
                end(future, call)
                assert_all_free(client)

    def test_a_passed_deadline_gives_the_bytes_back(self, serve: Serve) -> None:
        held, told = Held(), threading.Event()
        with serve(Routes(unary={PATH: held, ECHO: echo})) as client:
            future = client.unary(PATH).future(MORE_THAN_HALF, timeout=0.2)
            held.next().on_cancel(told.set)
            assert told.wait(PATIENCE)
            assert future.exception(PATIENCE).code() == grpc.StatusCode.DEADLINE_EXCEEDED
            assert_all_free(client)

    def test_a_handler_that_raises_keeps_nothing(self, serve: Serve) -> None:
        with serve(Routes(unary={BROKEN: broken, ECHO: echo})) as client:
            for _ in range(3):
                error = failure(lambda: client.call(BROKEN, MORE_THAN_HALF))
                assert error.code() == grpc.StatusCode.INTERNAL
            assert_all_free(client)

    def test_answers_from_many_threads_give_back_exactly(self, serve: Serve) -> None:
        held = Held()
        with serve(Routes(unary={PATH: held, ECHO: echo})) as client:
            futures = [client.unary(PATH).future(bytes(ROOM // 20)) for _ in range(20)]
            calls = [held.next() for _ in futures]
            assert_refused(client, b"x")
            threads = [threading.Thread(target=call.reply, args=((b"",),)) for call in calls]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert {future.result(PATIENCE) for future in futures} == {b""}
            assert_all_free(client)

    def test_a_streams_messages_hold_their_bytes_until_they_are_answered(
        self, serve: Serve
    ) -> None:
        recorders = Recorders()
        with serve(Routes(unary={ECHO: echo}, streams={STREAM: recorders})) as client:
            requests = Requests(MORE_THAN_HALF)
            answers = client.stream(STREAM, iter(requests))
            recorder = recorders.next()
            for _ in range(3):
                assert recorder.messages.get(timeout=PATIENCE) == MORE_THAN_HALF
                assert_refused(client, MORE_THAN_HALF)
                recorder.stream.send((b"answer",))
                # More answers than messages earn no room.
                recorder.stream.send((b"unasked",))
                assert [next(answers), next(answers)] == [b"answer", b"unasked"]
                assert_all_free(client)
                requests.send(MORE_THAN_HALF)
            answers.cancel()

    @pytest.mark.parametrize("ending", ["cancel", "finish", "fail"])
    def test_a_stream_that_ends_holds_nothing(self, serve: Serve, ending: str) -> None:
        recorders = Recorders()
        with serve(Routes(unary={ECHO: echo}, streams={STREAM: recorders})) as client:
            answers = client.stream(STREAM, iter(Requests(bytes(4000), bytes(4000))))
            recorder = recorders.next()
            for _ in range(2):
                recorder.messages.get(timeout=PATIENCE)
            assert_refused(client, MORE_THAN_HALF)
            if ending == "cancel":
                answers.cancel()
            elif ending == "finish":
                recorder.stream.finish()
            else:
                recorder.stream.fail(InvalidInput("no"))
            recorder.over.get(timeout=PATIENCE)
            assert_all_free(client)

    def test_a_message_that_finds_no_room_ends_its_stream_alone(self, serve: Serve) -> None:
        recorders = Recorders(echo_stream)
        with serve(Routes(unary={ECHO: echo}, streams={STREAM: recorders})) as client:
            other = client.stream(STREAM, iter(Requests(b"2")))
            assert next(other) == b"<2>"
            answers = client.stream(STREAM, iter(Requests(b"1", bytes(ROOM + 1))))
            assert next(answers) == b"<1>"
            assert_never(failure(lambda: next(answers)))
            survivor = recorders.next()
            recorders.next().over.get(timeout=PATIENCE)
            assert survivor.over.empty()
            assert_all_free(client)
            other.cancel()
