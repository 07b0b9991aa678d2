"""A proxy that cuts connections in the middle of an answer, and counts what went through."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

PART = 65536


class CuttingProxy:
    """Passes connections on to a port; the first ones end after some bytes of answers."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        """Begin to listen.

        Args:
            port: of the server.
            cuts: bytes of answers after which connections are cut, one after the other; what
                carries less than that in all is not counted.
        """
        self._target = port
        self._cuts = cuts
        self.passed = 0
        """Bytes of all answers."""
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Listen no more, and cut what is open."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            end(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            threading.Thread(target=self._pass_on, args=(client, server), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(PART):
                target.sendall(data)
        end(target)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        sent = 0
        with suppress(OSError):
            while data := source.recv(PART):
                target.sendall(data)
                sent += len(data)
                with self._lock:
                    self.passed += len(data)
                    cut = bool(self._cuts) and sent >= self._cuts[0]
                    if cut:
                        del self._cuts[0]
                if cut:
                    break
        end(target)
        end(source)

    @property
    def left(self) -> int:
        """How many cuts are still to come."""
        return len(self._cuts)


def end(one: socket.socket) -> None:
    """Close a connection now."""
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
