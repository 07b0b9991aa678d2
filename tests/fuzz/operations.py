"""Turns the bytes of a fuzzer into choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Reads bytes one after the other; at their end everything is 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        """True when every byte was read."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """Return the next byte."""
        self._at += 1
        return 0 if self._at > len(self._data) else self._data[self._at - 1]

    def number(self, lowest: int, highest: int) -> int:
        """Return a number between two, both included; two bytes where one is not enough."""
        wide = highest - lowest > 255
        value = self.byte() << 8 | self.byte() if wide else self.byte()
        return lowest + value % (highest - lowest + 1)

    def one_of(self, things: Sequence[T]) -> T:
        """Return one of several things."""
        return things[self.byte() % len(things)]

    def rest(self) -> bytes:
        """Return all bytes that were not read."""
        found, self._at = self._data[self._at :], len(self._data)
        return found
