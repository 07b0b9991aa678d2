"""The threads on which gRPC handles a server's sockets, found out from outside.

gRPC's event-engine listener does so, and each message then wakes some of its threads. They
exist in either case, and so their wake-ups tell, not their names: with grpcio 1.85.1 on Linux
3.4 to 4.7 for each exchange of two frames with the listener, 0.0 without, over either transport.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import BinaryIO

from inferd_server.transport.call import Routes, Transport

TASKS = Path("/proc/self/task")
THREADS = "event_engine"
EXCHANGES = 20
PATIENCE_S = 5.0

# Source: RFC 9113, 3.4 (preface), 4.1 (frames) and 6.5 (SETTINGS, which must be acknowledged).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, ACKNOWLEDGED = 4, 1
EMPTY_SETTINGS = bytes((0, 0, 0, SETTINGS, 0, 0, 0, 0, 0))
HEADER_BYTES = 9


def listener_wakeups(transport: Transport) -> float:
    """Start a transport, exchange frames with it, stop it; return the wake-ups per exchange.

    Raises:
        OSError: no exchange was possible.
        StartupError: the transport does not start.
    """
    port = transport.start("127.0.0.1:0", Routes())
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as connection:
            return _exchange(connection)
    finally:
        transport.stop(0)


def _exchange(connection: socket.socket) -> float:
    with connection.makefile("rb") as frames:
        connection.sendall(PREFACE + EMPTY_SETTINGS)
        _await_acknowledgement(frames)
        before = wakeups()
        for _ in range(EXCHANGES):
            connection.sendall(EMPTY_SETTINGS)
            _await_acknowledgement(frames)
        return (wakeups() - before) / EXCHANGES


def _await_acknowledgement(frames: BinaryIO) -> None:
    while True:
        header = frames.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            raise ConnectionError("the connection was closed")
        frames.read(int.from_bytes(header[:3], "big"))
        if header[3] == SETTINGS and header[4] & ACKNOWLEDGED:
            return


def wakeups(tasks: Path = TASKS) -> int:
    """Return how often this process's event-engine threads were given a processor.

    Source: /proc/PID/task/TID/schedstat, its third number (Linux, sched-stats.rst).
    """
    return sum(_turns(task) for task in tasks.iterdir())


def _turns(task: Path) -> int:
    try:
        if (task / "comm").read_text().strip() != THREADS:
            return 0
        return int((task / "schedstat").read_text().split()[2])
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return 0
