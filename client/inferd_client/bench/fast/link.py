"""A way to the server: one connection at a time, and the calls that wait for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from inferd_client.bench.fast.call import UNAVAILABLE
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.wire import Address, Wire, Wires

# Seconds after a connection that brought nothing; each further one doubles them.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0


class Caller(Protocol):
    """What asks for a connection."""

    def begin(self, connection: Connection) -> None:
        """Start on a connection that has room."""

    def ended(self, code: str) -> None:
        """No connection can be had."""


class Link:
    """Connects when a call needs it, and again when the connection ends."""

    def __init__(
        self, addresses: Sequence[Address], wires: Wires, clock: Callable[[], float]
    ) -> None:
        """Prepare.

        Args:
            addresses: of the server; the next one is tried when one fails.
            wires: opens and watches the sockets.
            clock: monotonic seconds.
        """
        self._addresses = addresses
        self._wires = wires
        self._clock = clock
        self._wire: Wire | None = None
        self._waiting: deque[Caller] = deque()
        self._at = 0
        self._failures = 0
        self._not_before = 0.0

    def submit(self, caller: Caller) -> None:
        """Start a call, now or when there is a connection with room."""
        wire = self._wire
        if wire is not None and not self._waiting and wire.connection.has_room:
            caller.begin(wire.connection)
        else:
            self._waiting.append(caller)
            self.dispatch()

    def withdraw(self, caller: Caller) -> None:
        """Forget a call that still waits."""
        self._waiting.remove(caller)

    def dispatch(self) -> None:
        """Start what waits, as far as there is room; connect if need be."""
        if self._wire is not None and self._wire.connection.retired:
            self._leave(self._wire)
        if self._wire is None:
            if self._waiting:
                self._connect()
            return
        connection = self._wire.connection
        while self._waiting and connection.has_room:
            self._waiting.popleft().begin(connection)

    def lost(self, wire: Wire) -> None:
        """Go on without a wire that is closed."""
        if wire is not self._wire:
            return
        self._leave(wire)
        if wire.connection.answered:
            self.dispatch()
        else:
            self._failed()

    def _leave(self, wire: Wire) -> None:
        self._wire = None
        if wire.connection.answered:
            self._failures = 0
        else:
            # Whatever the reason, a server that only hangs up is not to be hammered.
            self._back_off()

    def _back_off(self) -> None:
        pause = min(_FIRST_PAUSE * 2.0**self._failures, _LONGEST_PAUSE)
        self._failures += 1
        self._not_before = self._clock() + pause

    def _connect(self) -> None:
        if self._clock() < self._not_before:
            return
        try:
            self._wire = self._wires.open(self._addresses[self._at], self)
        except OSError:
            self._back_off()
            self._failed()

    def _failed(self) -> None:
        """Try the next address, or fail what waits once none is left."""
        self._at = (self._at + 1) % len(self._addresses)
        if self._at:
            self._not_before = 0.0
            self.dispatch()
            return
        waiting, self._waiting = self._waiting, deque()
        for caller in waiting:
            caller.ended(UNAVAILABLE)
