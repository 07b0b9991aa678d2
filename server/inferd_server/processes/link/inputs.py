"""Rows of requests in shared memory: the front writes them, the worker finds them by a header.

A block holds, as 64-bit integers, `capacity` and the number of inputs, and then for each input
where it begins, how many bytes it has if it is text (0 else), its rank and its row shape. Text
travels as the protocol writes it, one request to a block.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array, decode_bytes, encode_bytes
from inferd_engines.engine import RowSpec

from inferd_server.batching.lanes import Rows
from inferd_server.processes.link.layout import LINE, Layout, aligned
from inferd_server.processes.link.memory import tensor_view
from inferd_server.settings.model import SplitSettings

TEXT = DATATYPES[BYTES]
WORD = 8
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


def layout_of(split: SplitSettings) -> Layout:
    """Return what follows from the settings for the memory of one front."""
    return Layout(split.max_requests, class_of(split.input_bytes), aligned(split.answer_bytes))


class SharedRows:
    """Rows in a block of shared memory, as the front fills them."""

    def __init__(
        self, memory: Array, block: int, lane: int, specs: Sequence[RowSpec], capacity: int
    ) -> None:
        self.block = block
        self.lane = lane
        """A number that no other rows of this link ever had."""
        self._memory = memory
        self._specs = tuple(specs)
        self._capacity = capacity
        *self._offsets, self._end = offsets(specs, capacity)
        self.arrays = tuple(
            np.empty((capacity, *shape), dtype)
            if dtype == TEXT
            else tensor_view(memory, block + offset, dtype, (capacity, *shape))
            for (dtype, shape), offset in zip(specs, self._offsets, strict=True)
        )
        self._has_text = any(dtype == TEXT for dtype, _ in specs)
        if not self._has_text:
            self._describe(self._offsets, [0] * len(specs))

    def seal(self) -> None:
        """Make what was written ready to be read: encode text, which only now has a length."""
        if not self._has_text:
            return
        end = self._end
        starts, lengths = list(self._offsets), [0] * len(self._specs)
        for index, array in enumerate(self.arrays):
            if array.dtype == TEXT:
                data = encode_bytes(array)
                starts[index], lengths[index] = end, len(data)
                place = self._memory[self.block + end : self.block + end + len(data)]
                place[:] = np.frombuffer(data, np.uint8)
                end += len(data)
        self._describe(starts, lengths)

    def _describe(self, starts: Sequence[int], lengths: Sequence[int]) -> None:
        words = [self._capacity, len(self._specs)]
        for (_, shape), start, length in zip(self._specs, starts, lengths, strict=True):
            words += (start, length, len(shape), *shape)
        place = self._memory[self.block : self.block + len(words) * WORD]
        place.view(np.int64)[:] = words


def offsets(specs: Sequence[RowSpec], capacity: int) -> list[int]:
    """Return where in a block each input begins, and last where all of them end."""
    place = aligned(WORD * (2 + sum(3 + len(shape) for _, shape in specs)))
    found = []
    for dtype, shape in specs:
        found.append(place)
        if dtype != TEXT:
            place += aligned(capacity * dtype.itemsize * math.prod(shape))
    return [*found, place]


def weight(specs: Sequence[RowSpec], rows: int, nbytes: int) -> int:
    """Return how large a block has to be; `nbytes` counts for text, which may take so much."""
    text = nbytes if any(dtype == TEXT for dtype, _ in specs) else 0
    return offsets(specs, rows)[-1] + text


def read_rows(memory: Array, block: int, dtypes: Sequence[np.dtype[Any]]) -> tuple[Array, ...]:
    """Return the arrays of a block, as the worker runs them; text is decoded.

    Args:
        memory: of all inputs of the link, as bytes.
        block: offset of the block.
        dtypes: of the model's inputs.
    """
    words = memory[block:].view(np.int64)
    capacity = int(words[0])
    arrays = []
    at = 2
    for dtype in dtypes:
        start, length, rank = (int(word) for word in words[at : at + 3])
        shape = (capacity, *(int(size) for size in words[at + 3 : at + 3 + rank]))
        at += 3 + rank
        if dtype == TEXT:
            data = memory[block + start : block + start + length]
            arrays.append(decode_bytes(data.tobytes(), math.prod(shape)).reshape(shape))
        else:
            arrays.append(tensor_view(memory, block + start, dtype, shape))
    return tuple(arrays)


class InputMemory:
    """The front's side of a link's memory for inputs, shared by all its models."""

    def __init__(
        self, memory: Array, forget: Callable[[int, int], None] = lambda _offset, _size: None
    ) -> None:
        """Begin with nothing held.

        Args:
            memory: bytes, a power of two of them and what is spare for descriptions.
            forget: returns a part of it to the system, which is zeros from then on.
        """
        self._memory = memory
        self._forget = forget
        size = 1 << (len(memory).bit_length() - 1)
        self._blocks = Blocks(size, len(memory) - size)
        self._numbers = count(1)
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Bytes of inputs that fit."""
        return self._blocks.size

    @property
    def held(self) -> int:
        """Bytes of all blocks that are out."""
        return self._blocks.held

    def take(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> Rows | None:
        """Return rows in a block of their own, or None when none is free."""
        with self._lock:
            block = self._blocks.take(weight(specs, rows, nbytes))
            if block is None:
                return None
            return SharedRows(self._memory, block, next(self._numbers), specs, rows)

    def fits(self, specs: Sequence[RowSpec], rows: int, nbytes: int) -> bool:
        """True if a block could be that large."""
        return weight(specs, rows, nbytes) <= self._blocks.largest

    def give_back(self, rows: Rows) -> None:
        """Free the block."""
        assert isinstance(rows, SharedRows)
        with self._lock:
            self._blocks.give_back(rows.block)

    def trim(self) -> None:
        """Return the blocks that nobody holds to the system, for both processes."""
        with self._lock:
            for offset, size in self._blocks.free:
                self._forget(offset, size)

    def rounded(self, specs: Sequence[RowSpec], rows: int) -> int:
        """Return how many rows fit into the block that so many of them take; as many or more."""
        if weight(specs, rows, 0) > self.size:
            return rows
        row = sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs)
        room = class_of(weight(specs, rows, 0)) - weight(specs, rows, 0)
        # Every input begins on a line of its own: what that takes is left free.
        return rows + max(0, room - LINE * len(specs)) // max(1, row)

    def shares(self, specs: Sequence[RowSpec]) -> bool:
        """True without text: its rows have no fixed size."""
        return all(dtype != TEXT for dtype, _ in specs)
