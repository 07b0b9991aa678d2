"""A connection on a nonblocking socket."""

from __future__ import annotations

import selectors
import socket
from itertools import islice
from typing import Any, Protocol, TypeAlias

from inferd_client.bench.fast.call import UNAVAILABLE
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.frames import ProtocolError

# Measured: from 128 KB the allocator maps a buffer anew for each call, at four times the cost.
_RECEIVE_BYTES = 64 * 1024
# What one sendmsg takes on Linux.
_MOST_PARTS = 1024
_READ = selectors.EVENT_READ
_READ_WRITE = selectors.EVENT_READ | selectors.EVENT_WRITE

# The family, and what `connect` takes.
Address: TypeAlias = tuple[int, Any]


class Owner(Protocol):
    """The user of a wire."""

    def dispatch(self) -> None:
        """Something arrived; there may be room for more calls."""

    def lost(self, wire: Wire) -> None:
        """The wire is closed, and its calls are about to fail."""


class Wire:
    """One socket. Connecting, reading and writing all happen when the selector says so."""

    def __init__(
        self, opened: socket.socket, selector: selectors.BaseSelector, owner: Owner
    ) -> None:
        """Take over a nonblocking socket, which may still be connecting."""
        self.connection = Connection()
        self._socket = opened
        self._selector = selector
        self._owner = owner
        self._events = _READ_WRITE
        selector.register(opened, _READ_WRITE, self)

    @property
    def closed(self) -> bool:
        """True once the socket is closed."""
        return self._socket.fileno() < 0

    def ready(self, events: int) -> None:
        """Read if there is something, then write what there is to write."""
        try:
            if events & _READ:
                self._receive()
            self.flush()
        except ProtocolError:
            self._finish("INTERNAL")
        except OSError:
            self._finish(UNAVAILABLE)
        else:
            if self.connection.retired and not self.connection.calls:
                self._finish(UNAVAILABLE)

    def flush(self) -> None:
        """Write as much as the socket takes.

        Raises:
            OSError: the connection is broken.
        """
        parts = self.connection.outbox.parts
        try:
            while parts:
                _drop(parts, self._socket.sendmsg(islice(parts, _MOST_PARTS)))
        except BlockingIOError:
            self._watch(_READ_WRITE)
        else:
            self._watch(_READ)

    def close(self) -> None:
        """Close the socket; nobody is told."""
        if not self.closed:
            self._selector.unregister(self._socket)
            self._socket.close()

    def _receive(self) -> None:
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the server closed the connection")
        self.connection.receive(data)
        self._owner.dispatch()

    def _watch(self, events: int) -> None:
        if events != self._events:
            self._events = events
            self._selector.modify(self._socket, events, self)

    def _finish(self, code: str) -> None:
        self.close()
        self.connection.retired = True
        self._owner.lost(self)
        self.connection.lost(code)


class Wires:
    """The open wires of a process, and the selector that watches them."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._wires: list[Wire] = []

    def open(self, address: Address, owner: Owner) -> Wire:
        """Start to connect.

        Raises:
            OSError: it cannot even be tried.
        """
        family, where = address
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opened.connect(where)
        except BlockingIOError:
            pass  # under way
        except OSError:
            opened.close()
            raise
        return self.add(opened, owner)

    def add(self, opened: socket.socket, owner: Owner) -> Wire:
        """Take over a nonblocking socket."""
        wire = Wire(opened, self._selector, owner)
        self._wires = [*(each for each in self._wires if not each.closed), wire]
        return wire

    def turn(self, seconds: float) -> None:
        """Write what there is, then wait so long at most and let sockets read and write."""
        for wire in self._wires:
            if wire.connection.outbox.parts and not wire.closed:
                wire.ready(0)
        for key, events in self._selector.select(seconds):
            key.data.ready(events)

    def close(self) -> None:
        """Close everything."""
        for wire in self._wires:
            wire.close()
        self._selector.close()


def _drop(parts: list[bytes | memoryview], sent: int) -> None:
    """Remove what was sent from the front."""
    count = 0
    for part in parts:
        if len(part) > sent:
            break
        sent -= len(part)
        count += 1
    del parts[:count]
    if sent:
        parts[0] = memoryview(parts[0])[sent:]
