"""A grpc.aio server on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from inferd_server.errors import AddressInUse
from inferd_server.transport.aio.calls import serve_stream, serve_unary
from inferd_server.transport.call import Routes

T = TypeVar("T")


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
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="transport")
        self._server: grpc.aio.Server | None = None

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        self._thread.start()
        try:
            return self._wait(self._start(address, routes))
        except RuntimeError as error:
            self._end_loop()
            raise AddressInUse(
                f"grpc_port: {address} cannot be had; choose another with --grpc-port"
            ) from error

    def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones `grace` seconds, cancel the rest; blocks."""
        self._wait(self._stop(grace))
        self._end_loop()

    async def _start(self, address: str, routes: Routes) -> int:
        self._server = grpc.aio.server(options=self._options)
        self._server.add_generic_rpc_handlers((Router(routes, self._max_stream_messages),))
        port = self._server.add_insecure_port(address)
        await self._server.start()
        return port

    async def _stop(self, grace: float) -> None:
        if self._server is not None:
            await self._server.stop(grace)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Router(grpc.GenericRpcHandler):
    """Hands grpc.aio the raw-bytes handler of a method."""

    def __init__(self, routes: Routes, max_stream_messages: int) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            **{
                path: grpc.unary_unary_rpc_method_handler(serve_unary(handler))
                for path, handler in routes.unary.items()
            },
            **{
                path: grpc.stream_stream_rpc_method_handler(
                    serve_stream(handler, max_stream_messages)
                )
                for path, handler in routes.streams.items()
            },
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """Return the method's handler; None makes grpc answer UNIMPLEMENTED."""
        return self._handlers.get(handler_call_details.method)
