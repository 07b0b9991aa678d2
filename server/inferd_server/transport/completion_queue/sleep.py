"""The polling thread's sleep, where an eventfd ends it, too, and not events of core alone.

A second thread that waits for the eventfd would cost each request as much again: two threads that
take turns with the interpreter's lock slow each other down (docs/benchmarks.md).
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from inferd_server.transport.sockets import Place, sockets_of

LONGEST_S = 0.01
"""Of a sleep while something is awaited. Core's own threads, which end calls at their deadlines,
do not end it: they know of no thread that polls."""
IDLE_S = 0.05
"""Of a sleep while nothing is."""
DETAILS = Path("/proc/self/fdinfo")


class Sleep:
    """Sleeps until core has something to do, or the eventfd is written to."""

    def __init__(self, core: int, wake: int) -> None:
        """Prepare.

        Args:
            core: the descriptor that core itself sleeps on.
            wake: the eventfd; does not block.
        """
        self._wake = wake
        self._poll = select.poll()
        self._poll.register(core, select.POLLIN)
        self._poll.register(wake, select.POLLIN)

    def __call__(self, seconds: float | None) -> None:
        """Sleep for so many seconds at most; None: nothing is awaited."""
        longest = IDLE_S if seconds is None else min(seconds, LONGEST_S)
        for descriptor, _ in self._poll.poll(longest * 1e3):
            if descriptor == self._wake:
                with suppress(BlockingIOError):
                    os.eventfd_read(descriptor)

    def end(self) -> None:
        """End it, or the next one. Any thread."""
        os.eventfd_write(self._wake, 1)


def core_descriptor(
    place: Place, sockets: Callable[[Place], Iterable[int]] = sockets_of, details: Path = DETAILS
) -> int | None:
    """Return the epoll set that core polls the sockets of a place with; None if none is found.

    Source: proc(5), the fields "tfd" of an epoll descriptor in /proc/self/fdinfo.
    """
    wanted = {f"{descriptor}" for descriptor in sockets(place)}
    for entry in sorted(details.iterdir(), key=lambda one: int(one.name)):
        try:
            lines = entry.read_text().splitlines()
        except OSError:
            continue  # closed meanwhile
        if any(line.startswith("tfd:") and line.split()[1] in wanted for line in lines):
            return int(entry.name)
    return None
