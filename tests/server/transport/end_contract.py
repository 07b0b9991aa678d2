"""What the callers see of a transport that stops. A class per transport inherits it."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from inferd_server.transport import ending
from inferd_server.transport.call import Call, Routes
from inferd_server.transport.status import ERROR_KEY

from tests.server.serving import failure
from tests.server.transport.client import (
    PATIENCE,
    Client,
    Held,
    Recorders,
    Requests,
    Serve,
    serving,
)
from tests.server.transport.contract import (
    LIMIT,
    MAX_STREAM_MESSAGES,
    PATH,
    TransportContract,
    assert_still_serves,
    echo,
    holding,
)
from tests.server.transport.frames import DATA, GOAWAY, connected, request
from tests.server.transport.stop_contract import LONG

BUSY_S = 120
"""Seconds at most that the processors are kept at work."""


class EndContract(TransportContract):
    """Served, refused or given up, and never left without a word."""

    def test_a_caller_that_heard_of_the_end_gets_unavailable_while_others_finish(
        self, serve: Serve
    ) -> None:
        held, left = Held(), threading.Event()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            watch_leaving(client.channel, left)
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            assert left.wait(PATIENCE)
            error = failure(lambda: client.call("/test.Service/Echo"))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            call.reply((b"",))
            assert future.result(PATIENCE) == b""
            stopping.join(PATIENCE)

    def test_what_still_runs_after_the_grace_is_cancelled(self, serve: Serve) -> None:
        held, recorders, told = Held(), Recorders(), threading.Event()
        with serve(Routes(unary={PATH: held}, streams={"/test.Service/S": recorders})) as client:
            future = client.unary(PATH).future(b"")
            answers = client.stream("/test.Service/S", iter(Requests(b"1")))
            call, recorder = held.next(), recorders.next()
            call.on_cancel(told.set)
            client.transport.stop(0.05)
            # All of it has happened by the time that stop returns.
            assert told.is_set()
            assert call.cancelled
            assert recorder.over.get_nowait() is True
            for error in (future.exception(PATIENCE), failure(lambda: next(answers))):
                assert_shut_down(error)
            assert held.calls.empty()

    def test_calls_that_had_arrived_are_served(self, serve: Serve) -> None:
        """Many calls lie in the socket when the server, at work on the first, is told to stop."""
        seen: queue.Queue[bytes] = queue.Queue()
        working, told = threading.Event(), threading.Event()

        def handler(call: Call) -> None:
            if seen.empty():
                working.set()
                assert told.wait(PATIENCE)
            seen.put(call.request)
            call.reply((b"",))

        with (
            serve(Routes(unary={PATH: handler})) as client,
            connected(client.address) as connection,
        ):
            connection.send(request(PATH, 1, b"0"))
            assert working.wait(PATIENCE)
            connection.send(b"".join(request(PATH, 2 * n + 1, b"%d" % n) for n in range(1, 50)))
            connection.await_arrival()
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            told.set()
            assert {seen.get(timeout=PATIENCE) for _ in range(50)} == {b"%d" % n for n in range(50)}
        stopping.join(PATIENCE)
        assert not stopping.is_alive()

    @pytest.mark.slow
    def test_calls_that_had_arrived_are_served_on_a_busy_machine(self) -> None:
        """Two hundred times, beside a load."""
        with busy(2 * (os.cpu_count() or 1)):
            for _ in range(200):
                self.test_calls_that_had_arrived_are_served(serving(self.make))

    def test_a_connection_that_no_call_uses_does_not_put_off_the_end(self, serve: Serve) -> None:
        """Two of them: one that speaks HTTP/2 and ignores GOAWAY, and one that says nothing."""
        with (
            serve(Routes(unary={PATH: echo})) as client,
            connected(client.address) as speaking,
            connected(client.address, b"") as silent,
        ):
            speaking.send(request(PATH, 1, b"x"))
            speaking.await_frame(DATA)
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            speaking.await_end()
            silent.await_end()
            stopping.join(PATIENCE)
            assert not stopping.is_alive()

    def test_a_call_whose_message_is_on_its_way_is_no_idle_connection(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ending, "LINGER_S", 0.0)
        held = Held()
        message = request(PATH, 1, b"whole")
        with serve(holding(held)) as client, connected(client.address) as connection:
            connection.send(message[:-3])
            assert_still_serves(client)
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            connection.await_frame(GOAWAY)
            connection.send(message[-3:])
            call = held.next()
            assert call.request == b"whole"
            call.reply((b"answer",))
            assert connection.await_frame(DATA).payload.endswith(b"answer")
            stopping.join(PATIENCE)
            assert not stopping.is_alive()

    def test_a_caller_hears_of_the_end_before_an_answer_that_would_let_it_call_again(
        self, serve: Serve
    ) -> None:
        held = Held()
        with serve(holding(held)) as client, connected(client.address) as connection:
            connection.send(request(PATH, 1, b"x"))
            call = held.next()
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            call.reply((b"",))
            kinds = [frame.kind for frame in connection.frames()]
            if DATA in kinds:
                assert GOAWAY in kinds
            stopping.join(PATIENCE)

    @pytest.mark.parametrize("grace", [0, LONG])
    def test_a_call_that_meets_the_end_on_its_way_comes_back_at_once(
        self, serve: Serve, grace: float
    ) -> None:
        """UNAVAILABLE, or CANCELLED if gRPC core received it and no handler ever did."""
        seen: queue.Queue[grpc.StatusCode] = queue.Queue()
        answered = threading.Barrier(5)

        def call_until_refused(client: Client) -> None:
            client.call(PATH)
            answered.wait(PATIENCE)
            while (code := code_of(client)) is grpc.StatusCode.OK:
                pass
            seen.put(code)

        with serve(Routes(unary={PATH: echo})) as client:
            callers = [
                threading.Thread(target=call_until_refused, args=(client,)) for _ in range(4)
            ]
            for caller in callers:
                caller.start()
            answered.wait(PATIENCE)
            client.transport.stop(grace)
            for caller in callers:
                caller.join(PATIENCE)
            codes = {seen.get(timeout=PATIENCE) for _ in callers}
            assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
            assert code_of(client) is grpc.StatusCode.UNAVAILABLE

    def test_a_stream_that_does_not_read_is_cut_off(self, serve: Serve) -> None:
        """Its window is full, so that the server's answer cannot go out."""
        recorders = Recorders(lambda stream, data: stream.send((bytes(LIMIT),)))
        with serve(Routes(streams={PATH: recorders})) as client:
            answers = client.stream(PATH, iter([b"x"] * MAX_STREAM_MESSAGES))
            recorder = recorders.next()
            recorder.messages.get(timeout=PATIENCE)
            client.transport.stop(0)
            recorder.over.get_nowait()
            answers.cancel()


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep every core at work, by processes, until the end."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def code_of(client: Client) -> grpc.StatusCode:
    """Call, and return how it ended."""
    future = client.unary(PATH).future(b"", timeout=PATIENCE)
    return future.code()


def assert_shut_down(error: grpc.RpcError) -> None:
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert dict(error.trailing_metadata())[ERROR_KEY] == "ShuttingDown"


def watch_leaving(channel: grpc.Channel, left: threading.Event) -> None:
    """Tell when a channel that is connected is so no longer; wait until it is."""
    ready = threading.Event()

    def changed(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            ready.set()
        elif ready.is_set():
            left.set()

    channel.subscribe(changed)
    assert ready.wait(PATIENCE)
