"""The open calls of a transport, to be told when it stops; the same for every transport."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Live(Generic[T]):
    """A set whose members, and those that still come, can be told something. Any thread."""

    def __init__(self) -> None:
        self._members: set[T] = set()
        self._message: Callable[[T], None] | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._members)

    def add(self, member: T) -> None:
        """Add a new member, and tell it what the others were told."""
        with self._lock:
            self._members.add(member)
            message = self._message
        if message is not None:
            message(member)

    def remove(self, member: T) -> None:
        """Forget a member, if it is one."""
        with self._lock:
            self._members.discard(member)

    def tell(self, message: Callable[[T], None]) -> None:
        """Tell every member, and from now on each new one."""
        with self._lock:
            self._message = message
            members = tuple(self._members)
        for member in members:
            message(member)
