"""A grpc.aio server on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time

import grpc
import grpc.aio

from inferd_server.transport.aio.calls import AioCall, Serve, UnaryServer, authorized
from inferd_server.transport.aio.streams import OpenStream, StreamServer
from inferd_server.transport.call import Authorize, Routes
from inferd_server.transport.ending import (
    ARRIVE_LOOK_S,
    ARRIVE_LOOKS,
    LOOK_S,
    QUIET_LOOKS,
    Next,
    StopWait,
)
from inferd_server.transport.in_flight import bounds_of
from inferd_server.transport.listening import cannot_listen, check_free
from inferd_server.transport.options import TransportOptions, channel_arguments
from inferd_server.transport.sockets import Arriving, Place, place_of
from inferd_server.transport.tls import server_credentials

CANCELLED_TASKS_S = 5.0
# What a caller gets to take the answer of a call that was given up.
GIVE_UP_S = 1.0
# Rounds of the event loop in which a call that reached the loop reaches its handler.
ROUNDS = 16
NEVER_S = 1e6
"""A grace that `_stop` ends itself."""


class AioTransport:
    """Serves calls with grpc.aio. Handlers run on the event loop and must not block."""

    name = "aio"

    def __init__(self, options: TransportOptions) -> None:
        self._options = options
        self.bounds = bounds_of(options)
        self._unary = UnaryServer(self.bounds)
        self._streams = StreamServer(options.max_stream_messages, self.bounds)
        self._place: Place = 0
        self._server: grpc.aio.Server | None = None
        self._router: Router | None = None
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._stopping = threading.Lock()
        self._hurry = asyncio.Event()

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
            CredentialsError: the key or the certificates cannot be used.
        """
        check_free(address, self._options.reuse_port, self._options.port_setting)
        source = self._options.credentials
        credentials = None if source is None else server_credentials(source)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="transport", daemon=True)
        thread.start()
        self._running = loop, thread
        starting = self._start(address, routes, credentials)
        try:
            port = asyncio.run_coroutine_threadsafe(starting, loop).result()
        except RuntimeError as error:
            end_loop(loop, thread)
            raise cannot_listen(address, credentials is not None) from error
        self._place = place_of(address, port)
        return port

    def wake_by(self, descriptor: int) -> bool:
        """Return False: no work is done between the events of an event loop."""
        del descriptor
        return False

    def stop(self, grace: float) -> None:
        """Refuse new calls, drain streams, give up what still runs after `grace` seconds.

        Blocks until every call is over. A second call, from another thread, with a
        smaller grace ends the first one sooner; after that it does nothing.
        """
        if self._running is None:
            return
        loop, thread = self._running
        if self._stopping.acquire(blocking=False):
            asyncio.run_coroutine_threadsafe(self._stop(grace), loop).result()
            end_loop(loop, thread)
            return
        with contextlib.suppress(RuntimeError):
            # RuntimeError: the loop is closed, all is over.
            loop.call_soon_threadsafe(loop.call_later, grace, self._hurry.set)
        thread.join()

    async def _start(
        self, address: str, routes: Routes, credentials: grpc.ServerCredentials | None
    ) -> int:
        self._server = grpc.aio.server(options=channel_arguments(self._options))
        self._router = Router(routes, self._unary, self._streams)
        self._server.add_generic_rpc_handlers((self._router,))
        if credentials is None:
            port = self._server.add_insecure_port(address)
        else:
            port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        return port

    async def _stop(self, grace: float) -> None:
        assert self._server is not None
        # A caller who gets an answer now, and calls again, would meet the end on its way.
        self._unary.ends.clear()
        await self._settle()
        closing = asyncio.ensure_future(self._server.stop(NEVER_S))
        asyncio.get_running_loop().call_soon(self._unary.ends.set)
        self._streams.live.tell(OpenStream.drain)
        if await self._await_end(closing, grace) is Next.GIVE_UP:
            self._unary.live.tell(AioCall.give_up)
            self._streams.live.tell(OpenStream.give_up)
            await self._server.stop(GIVE_UP_S)
        if not closing.done():
            await self._server.stop(0)
        await closing
        # grpc.aio returns before the tasks of the calls that it cancelled have ended.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            ended, _ = await asyncio.wait(others, timeout=CANCELLED_TASKS_S)
            if not ended:
                break

    async def _await_end(self, closing: asyncio.Future[None], grace: float) -> Next:
        """Wait until all is over, or what is left is to be ended."""
        ending, found = StopWait(grace, time.monotonic), Next.WAIT
        own = {asyncio.current_task(), closing}
        while found is Next.WAIT and not closing.done():
            await asyncio.wait((closing,), timeout=min(LOOK_S, grace))
            # Each call is a task of grpc.aio's, from its arrival until its answer is sent.
            found = ending.look(len(asyncio.all_tasks() - own))
            if found is not Next.CLOSE and self._hurry.is_set():
                return Next.GIVE_UP
        return found

    async def _settle(self) -> None:
        """Take in what arrived before the end."""
        assert self._router is not None
        arriving, quiet = Arriving(self._place), 0
        for _ in range(ARRIVE_LOOKS):
            # Ahead of the rounds: they bring whatever reached the loop until then.
            more, arrived = arriving.look(), self._router.arrived
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
            quiet = 0 if more or self._router.arrived != arrived else quiet + 1
            if quiet == QUIET_LOOKS:
                return
            await asyncio.sleep(ARRIVE_LOOK_S)


def end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Stop a loop that runs on a thread of its own."""
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def unary_handler(serve: Serve, authorize: Authorize | None) -> grpc.RpcMethodHandler[bytes, bytes]:
    """Return grpc.aio's handler of a method, which decides on its calls first if it has to."""
    if authorize is None:
        return grpc.unary_unary_rpc_method_handler(serve)
    return grpc.stream_unary_rpc_method_handler(authorized(authorize, serve))


class Router(grpc.GenericRpcHandler):
    """Hands grpc.aio the raw-bytes handler of a method."""

    def __init__(self, routes: Routes, unary: UnaryServer, streams: StreamServer) -> None:
        self.arrived = 0
        """Calls so far."""
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            **{
                path: unary_handler(
                    unary.method(handler, routes.refused(path)), routes.authorize.get(path)
                )
                for path, handler in routes.unary.items()
            },
            **{
                path: grpc.stream_stream_rpc_method_handler(
                    streams.method(handler, routes.authorize.get(path), routes.refused(path))
                )
                for path, handler in routes.streams.items()
            },
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the method's handler; None makes grpc answer UNIMPLEMENTED."""
        self.arrived += 1
        return self._handlers.get(handler_call_details.method)
