"""How every transport starts and stops. A class per transport inherits it."""

from __future__ import annotations

import asyncio
import threading
import time

import grpc
import grpc.aio
import pytest
from inferd_server.errors import AddressInUse, ShuttingDown
from inferd_server.transport.call import Routes, Stream

from tests.server.serving import failure
from tests.server.transport.client import (
    PATIENCE,
    Held,
    Recorder,
    Recorders,
    Requests,
    Serve,
)
from tests.server.transport.contract import (
    PATH,
    TransportContract,
    echo,
    holding,
)

LONG = 60.0
"""A grace that no test waits out: if it did, it would fail by its timeout."""


class Draining(Recorder):
    """Ends its stream when told to drain."""

    def drain(self) -> None:
        super().drain()
        self.stream.fail(ShuttingDown("the server stops"))


class StopContract(TransportContract):
    """Refuse, drain, wait, cancel."""

    def test_a_port_in_use_is_an_error_that_names_it(self, serve: Serve) -> None:
        with serve(Routes(unary={PATH: echo})) as client:
            with pytest.raises(AddressInUse, match=client.address):
                self.make().start(client.address, Routes())
            assert client.call(PATH, b"still mine") == b"still mine"

    def test_running_calls_finish_within_the_grace(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            await_refusal(client.address)
            call.reply((b"finished",))
            assert future.result(PATIENCE) == b"finished"
            stopping.join(PATIENCE)
            assert not stopping.is_alive()
            assert not call.cancelled

    def test_streams_are_drained_so_that_an_idle_one_does_not_use_up_the_grace(
        self, serve: Serve
    ) -> None:
        made: list[Draining] = []

        def handler(stream: Stream) -> Draining:
            made.append(Draining(stream, lambda stream, data: stream.send((data,))))
            return made[-1]

        with serve(Routes(streams={PATH: handler})) as client:
            answers = client.stream(PATH, iter(Requests(b"1")))
            assert next(answers) == b"1"
            client.transport.stop(LONG)
            error = failure(lambda: next(answers))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert error.details() == "the server stops"
            assert made[0].drained.is_set()
            assert made[0].over.get_nowait() is False

    def test_a_second_stop_with_less_grace_ends_the_first(self, serve: Serve) -> None:
        held = Held()
        with serve(holding(held)) as client:
            future = client.unary(PATH).future(b"")
            call = held.next()
            stopping = threading.Thread(target=client.transport.stop, args=(LONG,))
            stopping.start()
            await_refusal(client.address)
            client.transport.stop(0)
            stopping.join(PATIENCE)
            assert not stopping.is_alive()
            assert call.cancelled
            assert future.exception(PATIENCE) is not None

    def test_stopping_again_does_nothing(self, serve: Serve) -> None:
        with serve(Routes(unary={PATH: echo})) as client:
            client.transport.stop(0)
            client.transport.stop(LONG)

    def test_stopping_what_never_started_does_nothing(self) -> None:
        self.make().stop(LONG)

    def test_answers_after_the_end_are_harmless(self, serve: Serve) -> None:
        held, recorders = Held(), Recorders()
        with serve(Routes(unary={PATH: held}, streams={"/test.Service/S": recorders})) as client:
            future = client.unary(PATH).future(b"")
            answers = client.stream("/test.Service/S", iter(Requests(b"1")))
            call, stream = held.next(), recorders.next().stream
            client.transport.stop(0)
            call.reply((b"late",))
            call.fail(ShuttingDown("late"))
            stream.send((b"late",))
            stream.finish()
            stream.fail(ShuttingDown("late"))
            assert future.exception(PATIENCE) is not None
            failure(lambda: next(answers))

    def test_the_port_is_free_again_after_the_stop(self, serve: Serve) -> None:
        with serve(Routes(unary={PATH: echo})) as client:
            client.transport.stop(0)
            transport = self.make()
            port = transport.start(client.address, Routes(unary={PATH: echo}))
            transport.stop(0)
            assert client.address.endswith(f":{port}")

    def test_no_thread_outlives_the_transport(self, serve: Serve) -> None:
        async def beside_grpc_aio() -> None:
            # It has one thread for all of a process, which begins with the first use in a loop.
            grpc.aio.init_grpc_aio()
            try:
                before = set(threading.enumerate())
                transport = self.make()
                transport.start("127.0.0.1:0", Routes(unary={PATH: echo}))
                assert set(threading.enumerate()) != before
                transport.stop(0)
                assert not set(threading.enumerate()) - before
            finally:
                grpc.aio.shutdown_grpc_aio()

        asyncio.run(beside_grpc_aio())


def await_refusal(address: str) -> None:
    """Wait until the server takes no new connections' calls: a stop has begun."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        # A channel of its own each time: a pool would share one connection and its state.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(address, options) as channel:
            error = failure(lambda: channel.unary_unary("/test.Service/None")(b"", timeout=1))
        if error.code() != grpc.StatusCode.UNIMPLEMENTED:
            return
    raise AssertionError("the server still takes calls")
