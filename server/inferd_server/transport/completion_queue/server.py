"""A server on gRPC core's completion queue, polled by one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import grpc

from inferd_server.transport.call import Routes
from inferd_server.transport.completion_queue.calls import QueueCall, UnaryService, admitted
from inferd_server.transport.completion_queue.core import CoreCall, CoreServer, Event
from inferd_server.transport.completion_queue.gate import Gate
from inferd_server.transport.completion_queue.sleep import Sleep, core_descriptor
from inferd_server.transport.completion_queue.streams import QueueStream
from inferd_server.transport.completion_queue.unwatched import Unwatched
from inferd_server.transport.ending import LOOK_S, Next, StopWait, take_in
from inferd_server.transport.in_flight import bounds_of
from inferd_server.transport.listening import cannot_listen, check_free
from inferd_server.transport.live import Live
from inferd_server.transport.options import TransportOptions, channel_arguments
from inferd_server.transport.sockets import Arriving, Place, place_of
from inferd_server.transport.tls import server_credentials

log = logging.getLogger(__name__)
Arrived = Callable[[Event, Gate], None]

# Calls of these get the cheaper way through core.
HOT = ("/inference.GRPCInferenceService/ModelInfer",)
# Calls that core may hand over between two polls.
READY_HOT, READY_OTHERS = 64, 16
# Events in a row without a turn; a unary call brings three.
EVENTS = 192
# Looks without an event before a sleep. The next event of one caller is often there after a few,
# which is cheaper than to be woken; where answers come from another process, it never is.
MISSES, MISSES_OF_FRONT = 6, 2
# What a caller gets to take the answer of a call that was given up.
GIVE_UP_S = 1.0


class Turns(Protocol):
    """Work for the polling thread between events."""

    def turn(self) -> float | None:
        """Work; return the seconds after which to be called again if no event comes, or None."""


@dataclass(frozen=True, slots=True)
class NoTurns:
    """No work."""

    def turn(self) -> None:
        """Do nothing."""


class CompletionQueueTransport:
    """Serves calls on one polling thread. Handlers run on it and must not block."""

    name = "completion_queue"

    def __init__(
        self,
        options: TransportOptions,
        turns: Turns = NoTurns(),
    ) -> None:
        """Prepare.

        Args:
            options: limits and TLS.
            turns: done on the polling thread.
        """
        self._turns = turns
        self._options = options
        self.bounds = bounds_of(options)
        self._core: CoreServer | None = None
        self._place: Place = 0
        self._wakes = -1
        self._sleep: Sleep | None = None
        self._calls: Live[QueueCall] = Live()
        self._streams: Live[QueueStream] = Live()
        self._unwatched: Unwatched[QueueCall] = Unwatched(time.monotonic)
        self._shutting = threading.Event()
        self._over = threading.Event()
        self._stopping = threading.Lock()
        self._thread = threading.Thread(target=self._poll, name="transport", daemon=True)

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
            CredentialsError: the key or the certificates cannot be used.
        """
        check_free(address, self._options.reuse_port, self._options.port_setting)
        source = self._options.credentials
        credentials = None if source is None else server_credentials(source)
        core = CoreServer(channel_arguments(self._options))
        port = core.listen(address, credentials)
        if not port:
            core.close()
            raise cannot_listen(address, credentials is not None)
        self._core, self._place = core, place_of(address, port)
        unary = {path: self._unary(path, routes) for path in routes.unary}
        hot = [path for path in HOT if path in unary]
        core.start(hot)
        for path in hot:
            for _ in range(READY_HOT):
                core.accept(path, unary[path])
        for _ in range(READY_OTHERS):
            core.accept(None, lambda event, gate: self._accepted(event, gate, routes, unary))
        if self._wakes >= 0:
            self._sleep = self._open_sleep()
        self._thread.start()
        return port

    def wake_by(self, descriptor: int) -> None:
        """End the polling thread's sleep, for a turn, whenever an eventfd is written to.

        Before `start`, where this process has no other transport. The eventfd does not block.
        """
        self._wakes = descriptor

    @property
    def woken(self) -> bool:
        """True if `wake_by` works; else somebody else has to wait for the eventfd."""
        return self._sleep is not None

    def stop(self, grace: float) -> None:
        """Refuse new calls, drain streams, give up what still runs after `grace` seconds.

        Blocks until every call is over. A second call, from another thread, with a
        smaller grace ends the first one sooner; after that it does nothing.
        """
        if self._core is None:
            return
        first = self._stopping.acquire(blocking=False)
        if first:
            self._core.on_poller(self._shut)
            self._wake()
        self._shutting.wait()
        if self._await_end(grace) is Next.GIVE_UP:
            self._calls.tell(QueueCall.give_up)
            self._streams.tell(QueueStream.give_up)
            self._over.wait(GIVE_UP_S)
        while not self._over.wait(0):
            self._core.cancel_calls()
            self._over.wait(GIVE_UP_S)
        if first:
            self._core.close()
            self._wake()
        self._thread.join()

    def _await_end(self, grace: float) -> Next:
        """Wait until all is over, or what is left is to be ended."""
        ending = StopWait(grace, time.monotonic)
        found = Next.WAIT
        while found is Next.WAIT and not self._over.wait(min(LOOK_S, grace)):
            requests, answers = self.bounds.requests, self.bounds.answers
            waiting = requests.awaited + answers.held + len(self._unwatched)
            found = ending.look(waiting + len(self._calls) + len(self._streams))
        return found

    def _shut(self) -> None:
        assert self._core is not None
        # A caller who gets an answer now, and calls again, would meet the end on its way.
        self._core.keep_ends()
        try:
            take_in(self._core.poll, Arriving(self._place).look)
        except Exception:
            # The end must come, whatever becomes of these.
            log.exception("calls that had arrived could not be taken in")
        self._core.stop(self._over.set)
        self._core.release_ends()
        self._shutting.set()
        self._streams.tell(QueueStream.drain)

    def _service(self, path: str, routes: Routes) -> UnaryService:
        bounds = self.bounds
        return UnaryService(
            routes.unary[path],
            bounds.requests,
            bounds.answers,
            bounds.compression,
            self._unwatched.add,
            routes.refused(path),
        )

    def _unary(self, path: str, routes: Routes) -> Arrived:
        service = self._service(path, routes)
        authorize = routes.authorize.get(path)

        def arrived(event: Event, gate: Gate) -> None:
            call = QueueCall(event, gate, service)
            if authorize is None or admitted(call, authorize):
                call.serve()

        return arrived

    def _accepted(
        self, event: Event, gate: Gate, routes: Routes, unary: Mapping[str, Arrived]
    ) -> None:
        call = CoreCall(event, gate)
        method = call.method
        if method in unary:
            unary[method](event, gate)
            return
        authorize = routes.authorize.get(method)
        if authorize is not None and not admitted(call, authorize):
            return
        if method in routes.streams:
            most, refused = self._options.max_stream_messages, routes.refused(method)
            stream = QueueStream(call, most, self.bounds, refused)
            stream.serve(routes.streams[method], self._streams)
        else:
            text = f"there is no method {method}"
            call.end(grpc.StatusCode.UNIMPLEMENTED, text, (), first=True, watched=False)

    def _poll(self) -> None:
        assert self._core is not None
        misses = MISSES if self._sleep is None else MISSES_OF_FRONT
        running: bool | None = True
        while running is not None:
            # What is there first, so that it makes one batch; then a turn; then the next event.
            running = self._core.drain(EVENTS, misses)
            if running is not None:
                began = time.monotonic()
                wait = self._take_turn()
                # Where nothing waits, calls that come now answer to what was sent just before.
                self._core.away(time.monotonic() - began if wait == 0.0 else 0.0)
                self._watch(self._unwatched.take())
                if running is False:
                    running = self._rest(self._unwatched.wait(wait))
        self._watch(self._unwatched.rest())

    def _open_sleep(self) -> Sleep | None:
        core = core_descriptor(self._place)
        if core is None:
            log.warning("answers take a thread of their own: gRPC's descriptor was not found")
            return None
        return Sleep(core, self._wakes)

    def _rest(self, seconds: float | None) -> bool | None:
        """Wait for an event, or what else ends it; None: the queue is over."""
        assert self._core is not None
        if self._sleep is None:
            return self._core.poll(seconds)
        self._sleep(seconds)
        return True

    def _wake(self) -> None:
        """End the polling thread's sleep for what another thread asked of core."""
        if self._sleep is not None:
            self._sleep.end()

    def _take_turn(self) -> float | None:
        try:
            return self._turns.turn()
        except Exception:
            log.exception("a turn failed")
            return None

    def _watch(self, calls: Sequence[QueueCall]) -> None:
        for call in calls:
            call.watch(self._calls)
