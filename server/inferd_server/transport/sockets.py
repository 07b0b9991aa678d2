"""This process's sockets and threads, as the kernel sees them: gRPC core shows none of its own."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")


def has_unread(port: int) -> bool:
    """Return True while a connection to a port waits to be accepted, or its bytes to be read.

    Also where that cannot be seen, as without a descriptor to look with.
    """
    poll = select.poll()
    try:
        for descriptor in sockets_of(port):
            poll.register(descriptor, select.POLLIN)
    except OSError:
        return True
    return any(seen & select.POLLIN for _, seen in poll.poll(0))


def sockets_of(port: int) -> Iterator[int]:
    """Yield the descriptors of this process's sockets on a local port; they may be closed soon."""
    # All of them first: the list itself is read through a descriptor that is gone afterwards.
    for descriptor in [int(entry.name) for entry in DESCRIPTORS.iterdir()]:
        if _local_port(descriptor) == port:
            yield descriptor


def _local_port(descriptor: int) -> int:
    """Return the local port of a TCP socket; -1 for any other descriptor."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return -1
    try:
        tcp = found.family in {socket.AF_INET, socket.AF_INET6} and found.type == socket.SOCK_STREAM
        return int(found.getsockname()[1]) if tcp else -1
    except OSError:
        return -1
    finally:
        # The descriptor is another's to close.
        found.detach()


def others_run() -> bool:
    """Return True while a thread of this process, besides the caller, has or awaits a processor.

    Also where that cannot be seen, as without a descriptor to look with.
    Source: proc_pid_stat(5); the name in parentheses may hold anything.
    """
    own = str(threading.get_native_id())
    try:
        return any(_runs(task) for task in TASKS.iterdir() if task.name != own)
    except OSError:
        return True


def _runs(task: Path) -> bool:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return False
