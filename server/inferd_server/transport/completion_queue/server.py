"""A server on gRPC core's completion queue, polled by one thread."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

import grpc

from inferd_server.errors import AddressInUse
from inferd_server.transport.call import Receiver, Routes, UnaryHandler
from inferd_server.transport.completion_queue.calls import QueueCall
from inferd_server.transport.completion_queue.core import CoreCall, CoreServer
from inferd_server.transport.completion_queue.streams import QueueStream
from inferd_server.transport.listening import check_free

log = logging.getLogger(__name__)

# Calls of these get the cheaper way through core.
HOT = ("/inference.GRPCInferenceService/ModelInfer",)
# Calls that core may hand over between two polls.
READY_HOT, READY_OTHERS = 64, 16
# Events in a row without a turn; a unary call brings three.
EVENTS = 192


class CompletionQueueTransport:
    """Serves calls on one polling thread. Handlers run on it and must not block."""

    name = "completion_queue"

    def __init__(
        self,
        max_message_bytes: int,
        max_stream_messages: int,
        turn: Callable[[], float | None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            max_message_bytes: largest message received or sent.
            max_stream_messages: messages of one stream that may await their answer.
            turn: called on the polling thread between events; returns the seconds after which
                it wants to be called again if no event comes, or None.
        """
        self._turn = turn
        self._options = (
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            # Two servers on one port would share its callers without a word.
            ("grpc.so_reuseport", 0),
        )
        self._max_stream_messages = max_stream_messages
        self._core: CoreServer | None = None
        self._live = LiveStreams()
        self._waiting: list[QueueCall] = []
        self._over = threading.Event()
        self._stopping = threading.Lock()
        self._thread = threading.Thread(target=self._poll, name="transport", daemon=True)

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """
        check_free(address)
        core = CoreServer(self._options)
        port = core.listen(address)
        if not port:
            core.close()
            raise AddressInUse(
                f"grpc_port: {address} cannot be had; choose another with --grpc-port"
            )
        self._core = core
        hot = {path: routes.unary[path] for path in HOT if path in routes.unary}
        core.start(list(hot))
        for path, handler in hot.items():
            for _ in range(READY_HOT):
                core.accept(path, self._unary(handler))
        for _ in range(READY_OTHERS):
            core.accept(None, lambda call: self._accepted(call, routes))
        self._thread.start()
        return port

    def stop(self, grace: float) -> None:
        """Refuse new calls, drain streams, cancel what still runs after `grace` seconds.

        Blocks until every call is over. A second call, from another thread, with a
        smaller grace ends the first one sooner; after that it does nothing.
        """
        if self._core is None:
            return
        first = self._stopping.acquire(blocking=False)
        if first:
            self._core.stop(self._over.set)
            self._live.drain()
        if not self._over.wait(grace):
            self._core.cancel_calls()
            self._over.wait()
        if first:
            self._core.close()
        self._thread.join()

    def _unary(self, handler: UnaryHandler) -> Callable[[CoreCall], None]:
        waits = self._waiting.append

        def arrived(call: CoreCall) -> None:
            QueueCall(call, handler, waits)

        return arrived

    def _accepted(self, call: CoreCall, routes: Routes) -> None:
        method = call.method
        if method in routes.unary:
            QueueCall(call, routes.unary[method], self._waiting.append)
        elif method in routes.streams:
            stream = QueueStream(call, self._max_stream_messages)
            self._live.add(stream.serve(routes.streams[method], self._live.remove))
        else:
            text = f"there is no method {method}"
            call.end(grpc.StatusCode.UNIMPLEMENTED, text, (), first=True, watched=False)

    def _poll(self) -> None:
        assert self._core is not None
        running: bool | None = True
        while running is not None:
            # What is there first, so that it makes one batch; then a turn; then the next event.
            running = self._drain(self._core)
            if running is not None:
                wait = self._take_turn()
                self._watch_waiting()
                if running is False:
                    running = self._step(self._core, wait)
        self._watch_waiting()

    def _drain(self, core: CoreServer) -> bool | None:
        """Handle what is there. True: there may be more; False: nothing; None: over."""
        idle = False
        for _ in range(EVENTS):
            running = self._step(core, 0.0)
            if running is None or (idle and not running):
                return running
            # Core looks at one connection at a time: only two misses in a row mean none.
            idle = not running
        return True

    def _take_turn(self) -> float | None:
        try:
            return self._turn()
        except Exception:
            log.exception("a turn failed")
            return None

    def _step(self, core: CoreServer, wait: float | None) -> bool | None:
        try:
            return core.poll(wait)
        except Exception:
            # One event must not end the thread that serves all the others.
            log.exception("an event could not be handled")
            return True

    def _watch_waiting(self) -> None:
        while self._waiting:
            call = self._waiting.pop()
            if not call.answered:
                call.watch()


class LiveStreams:
    """The receivers of one server's streams, to be drained when it stops; any thread."""

    def __init__(self) -> None:
        self._receivers: set[Receiver] = set()
        self._draining = False
        self._lock = threading.Lock()

    def add(self, receiver: Receiver | None) -> None:
        """Know a new stream; None: its handler failed."""
        if receiver is None:
            return
        with self._lock:
            self._receivers.add(receiver)
            draining = self._draining
        if draining:
            receiver.drain()

    def remove(self, receiver: Receiver) -> None:
        """Forget a stream that is over."""
        with self._lock, contextlib.suppress(KeyError):
            self._receivers.remove(receiver)

    def drain(self) -> None:
        """Drain every stream, and those that still come."""
        with self._lock:
            self._draining = True
            receivers = tuple(self._receivers)
        for receiver in receivers:
            receiver.drain()
