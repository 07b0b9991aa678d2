"""Blocks of memory in fixed classes of sizes: powers of two, split and joined in pairs.

Source: the buddy system, Knuth, The Art of Computer Programming, volume 1, section 2.5.
"""

from __future__ import annotations

SMALLEST = 4096
"""Bytes of the smallest class."""


class Blocks:
    """Hands out blocks of one piece of memory by offset. For one thread at a time."""

    def __init__(self, size: int, spare: int = 0) -> None:
        """Begin with one free block.

        Args:
            size: bytes, a power of two and at least SMALLEST.
            spare: bytes behind them, which a block of all of them has, too.
        """
        if size < SMALLEST or size & (size - 1):
            raise ValueError(f"{size} is not a power of two of at least {SMALLEST}")
        self.size = size
        self.largest = size + spare
        """Bytes of the largest block."""
        self._free: dict[int, set[int]] = {size: {0}}
        self._held: dict[int, int] = {}

    @property
    def held(self) -> int:
        """Bytes of all blocks that are out."""
        return sum(self._held.values())

    @property
    def free(self) -> list[tuple[int, int]]:
        """Offset and size of every block that is free."""
        return [(offset, size) for size, offsets in self._free.items() for offset in offsets]

    def take(self, size: int) -> int | None:
        """Return the offset of a block of at least `size` bytes, or None."""
        wanted = self.size if size <= self.largest and size > self.size else class_of(size)
        found = wanted
        while not self._free.get(found):
            found *= 2
            if found > self.size:
                return None
        offset = self._free[found].pop()
        while found > wanted:
            found //= 2
            self._free.setdefault(found, set()).add(offset + found)
        self._held[offset] = wanted
        return offset

    def give_back(self, offset: int) -> None:
        """Free a block, and join it with its neighbour as often as that is free too."""
        size = self._held.pop(offset)
        while size < self.size and (offset ^ size) in self._free.get(size, ()):
            self._free[size].remove(offset ^ size)
            offset &= ~size
            size *= 2
        self._free.setdefault(size, set()).add(offset)


def class_of(size: int) -> int:
    """Return the size of the smallest block that holds so many bytes."""
    return max(SMALLEST, 1 << max(0, size - 1).bit_length())
