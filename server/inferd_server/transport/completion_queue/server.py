"""A server on gRPC core's completion queue, polled by one thread."""

from __future__ import annotations

import logging
import threading

import grpc

from inferd_server.errors import AddressInUse
from inferd_server.transport.call import Routes
from inferd_server.transport.completion_queue.calls import QueueCall, QueueStream
from inferd_server.transport.completion_queue.core import CoreCall, CoreServer

log = logging.getLogger(__name__)

HOT = "/inference.GRPCInferenceService/ModelInfer"
# Calls that may arrive between two polls without waiting for a place.
READY_CALLS, READY_OTHERS = 64, 8
# Streams hold their place only until they are accepted, so these numbers bound nothing.


class CompletionQueueTransport:
    """Serves calls on one polling thread. Handlers run on it and must not block."""

    name = "completion_queue"

    def __init__(self, max_message_bytes: int, max_stream_messages: int) -> None:
        self._options = (
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Two servers on one port would share its callers without a word.
            ("grpc.so_reuseport", 0),
        )
        self._max_stream_messages = max_stream_messages
        self._core = CoreServer(self._options)
        self._routes = Routes()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="transport")

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        port = self._core.listen(address)
        if not port:
            raise AddressInUse(
                f"grpc_port: {address} cannot be had; choose another with --grpc-port"
            )
        self._routes = routes
        hot = routes.unary.get(HOT)
        self._core.start([HOT] if hot else [])
        if hot:
            for _ in range(READY_CALLS):
                self._core.accept(HOT, lambda call: QueueCall(call, hot))
        for _ in range(READY_OTHERS):
            self._core.accept(None, self._accepted)
        self._thread.start()
        return port

    def stop(self, grace: float) -> None:
        """Refuse new calls, give running ones `grace` seconds, cancel the rest; blocks."""
        self._core.stop(self._stopped.set)
        if not self._stopped.wait(grace):
            self._core.cancel_calls()
            self._stopped.wait()
        self._core.close()
        self._thread.join()

    def _accepted(self, call: CoreCall) -> None:
        method = call.method
        unary, stream = self._routes.unary.get(method), self._routes.streams.get(method)
        if unary is not None:
            QueueCall(call, unary)
        elif stream is not None:
            QueueStream(call, stream, self._max_stream_messages)
        else:
            text = f"there is no method {method}"
            call.end(grpc.StatusCode.UNIMPLEMENTED, text, (), first=True, watched=False)

    def _poll(self) -> None:
        running: bool | None = True
        while running is not None:
            try:
                running = self._core.poll(None)
            except Exception:
                # One call's handler must not end the thread that serves all the others.
                log.exception("an event could not be handled")
