"""This process's sockets and threads, as the kernel sees them: gRPC core shows none of its own."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

from inferd_server.address import is_unix, socket_path

DESCRIPTORS = Path("/proc/self/fd")
TASKS = Path("/proc/self/task")
# What a thread does that has a processor, waits for one, or for its memory or a disk.
AT_WORK = ("R", "D")
Place: TypeAlias = int | Path
"""Where a server listens: a TCP port, or the path of a unix socket."""


def place_of(address: str, port: int) -> Place:
    """Return the place of an address that is listened on; the port counts where it has one."""
    return socket_path(address) if is_unix(address) else port


def has_unread(place: Place) -> bool:
    """Return True while a connection to a place waits to be accepted, or its bytes to be read.

    Also where that cannot be seen, as without a descriptor to look with.
    """
    poll = select.poll()
    try:
        for descriptor in sockets_of(place):
            poll.register(descriptor, select.POLLIN)
    except OSError:
        return True
    return any(seen & select.POLLIN for _, seen in poll.poll(0))


def sockets_of(place: Place) -> Iterator[int]:
    """Yield the descriptors of this process's sockets at a place; they may be closed soon."""
    # All of them first: the list itself is read through a descriptor that is gone afterwards.
    for descriptor in [int(entry.name) for entry in DESCRIPTORS.iterdir()]:
        if _place(descriptor) == place:
            yield descriptor


def _place(descriptor: int) -> Place | None:
    """Return where a socket listens or was accepted; None for any other descriptor."""
    try:
        found = socket.socket(fileno=descriptor)
    except OSError:
        return None
    try:
        if found.type != socket.SOCK_STREAM:
            return None
        name = found.getsockname()
        if found.family == socket.AF_UNIX:
            return Path(name) if name and isinstance(name, str) else None
        return int(name[1]) if found.family in {socket.AF_INET, socket.AF_INET6} else None
    except OSError:
        return None
    finally:
        # The descriptor is another's to close.
        found.detach()


class Arriving:
    """What is on its way to a server, from its sockets through the threads of this process."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._threads: Mapping[str, tuple[str, ...]] = {}

    def look(self) -> bool:
        """Return False if nothing was on its way at any time since the last look.

        Then no byte is unread, and every thread but this one waits, and was not switched since.
        One look at each thread would not do: who is found waiting may be woken by another before
        that one is looked at, or sleep for a moment because a lock is taken.
        """
        unread = has_unread(self._place)
        try:
            threads = _others()
        except OSError:
            return True
        last, self._threads = self._threads, threads
        at_work = any(state[0] in AT_WORK for state in threads.values())
        return unread or at_work or threads != last


def _others() -> Mapping[str, tuple[str, ...]]:
    """Return for each other thread its state, and how often it left a processor.

    Source: proc_pid_status(5).
    """
    own = str(threading.get_native_id())
    return {task.name: _state(task) for task in TASKS.iterdir() if task.name != own}


def _state(task: Path) -> tuple[str, ...]:
    try:
        lines = (task / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        # It has just ended.
        return ("",)
    values = (line.split(None, 2)[1] for line in lines if line.startswith(("State:", "voluntary")))
    return tuple(values)
