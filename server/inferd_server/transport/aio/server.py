"""A grpc.aio server on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import grpc
import grpc.aio

from inferd_server.errors import AddressInUse
from inferd_server.transport.aio.calls import serve_unary
from inferd_server.transport.aio.streams import LiveStreams, serve_stream
from inferd_server.transport.call import Routes
from inferd_server.transport.listening import check_free

CANCELLED_TASKS_S = 5.0


class AioTransport:
    """Serves calls with grpc.aio. Handlers run on the event loop and must not block."""

    name = "aio"

    def __init__(self, max_message_bytes: int, max_stream_messages: int) -> None:
        self._options = (
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Two servers on one port would share its callers without a word.
            ("grpc.so_reuseport", 0),
        )
        self._max_stream_messages = max_stream_messages
        self._live = LiveStreams()
        self._server: grpc.aio.Server | None = None
        self._running: tuple[asyncio.AbstractEventLoop, threading.Thread] | None = None
        self._stopping = threading.Lock()
        self._over = False
        self._shortening: list[asyncio.Future[None]] = []

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        check_free(address)
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="transport", daemon=True)
        thread.start()
        self._running = loop, thread
        try:
            return asyncio.run_coroutine_threadsafe(self._start(address, routes), loop).result()
        except RuntimeError as error:
            end_loop(loop, thread)
            raise AddressInUse(
                f"grpc_port: {address} cannot be had; choose another with --grpc-port"
            ) from error

    def stop(self, grace: float) -> None:
        """Refuse new calls, drain streams, cancel what still runs after `grace` seconds.

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
            loop.call_soon_threadsafe(self._shorten, grace)
        thread.join()

    async def _start(self, address: str, routes: Routes) -> int:
        self._server = grpc.aio.server(options=self._options)
        router = Router(routes, self._max_stream_messages, self._live)
        self._server.add_generic_rpc_handlers((router,))
        port = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def _stop(self, grace: float) -> None:
        assert self._server is not None
        self._live.drain()
        await self._server.stop(grace)
        # grpc.aio returns before the tasks of the calls that it cancelled have ended.
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            ended, _ = await asyncio.wait(others, timeout=CANCELLED_TASKS_S)
            if not ended:
                break
        self._over = True

    def _shorten(self, grace: float) -> None:
        assert self._server is not None
        if not self._over:
            # Kept, because the loop holds tasks weakly.
            self._shortening.append(asyncio.ensure_future(self._server.stop(grace)))


def end_loop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    """Stop a loop that runs on a thread of its own."""
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class Router(grpc.GenericRpcHandler):
    """Hands grpc.aio the raw-bytes handler of a method."""

    def __init__(self, routes: Routes, max_stream_messages: int, live: LiveStreams) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            **{
                path: grpc.unary_unary_rpc_method_handler(serve_unary(handler))
                for path, handler in routes.unary.items()
            },
            **{
                path: grpc.stream_stream_rpc_method_handler(
                    serve_stream(handler, max_stream_messages, live)
                )
                for path, handler in routes.streams.items()
            },
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the method's handler; None makes grpc answer UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)
