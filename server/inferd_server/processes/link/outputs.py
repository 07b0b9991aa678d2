"""The worker's memory for outputs: a ring, whose parts come back in the order they were taken.

A part holds the rows of one batch that belong to one front. As 64-bit integers it begins with
the number of outputs, and then for each where it begins, how many bytes it has if it is text
(0 else), its rank and its shape.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array, decode_bytes, encode_bytes

from inferd_server.processes.link.layout import aligned
from inferd_server.processes.link.memory import tensor_view

TEXT = DATATYPES[BYTES]
WORD = 8


class AnswerRing:
    """Places parts in a ring of bytes. Positions only grow; offsets are positions in the ring."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._head = 0
        self._tail = 0
        self._parts: deque[tuple[int, int]] = deque()

    @property
    def taken(self) -> int:
        """Bytes that were placed so far, room that was left empty among them."""
        return self._head

    @property
    def held(self) -> int:
        """Bytes that are not taken back."""
        return self._head - self._tail if self._parts else 0

    def place(self, size: int, number: int) -> int | None:
        """Return the position for a part, or None while there is no room.

        Args:
            size: bytes of the part, at most the ring's.
            number: how many answers are there with those of this part.
        """
        start = self._head
        if start % self.size + size > self.size:
            # Parts are in one piece: the rest of this round stays empty.
            start += self.size - start % self.size
        if not self._parts:
            # Nothing is held, the rest of the last round neither.
            self._tail = start
        if start + size - self._tail > self.size:
            return None
        self._head = start + size
        self._parts.append((number, self._head))
        return start

    def release(self, consumed: int) -> None:
        """Take the parts back whose answers were all consumed, `consumed` in number."""
        while self._parts and self._parts[0][0] <= consumed:
            self._tail = self._parts.popleft()[1]


class AnswerPart:
    """Outputs on their way into a part: what they weigh, and how they are written."""

    def __init__(self, outputs: Sequence[Array]) -> None:
        first = place = aligned(WORD * (1 + sum([3 + array.ndim for array in outputs])))
        self._words = [len(outputs)]
        # Each output, as text if it is some, and where it goes.
        self._placed: list[tuple[Array, bytes, int]] = []
        for array in outputs:
            text = encode_bytes(array) if array.dtype.hasobject else b""
            self._words += (place, len(text), array.ndim, *array.shape)
            self._placed.append((array, text, place))
            place += aligned(len(text) if array.dtype.hasobject else array.nbytes)
        self.size = place
        self.tensor_bytes = place - first

    def write(self, memory: Array, start: int) -> None:
        """Write everything to `memory` (bytes) from `start` on."""
        struct.pack_into(f"={len(self._words)}q", memory.data, start, *self._words)
        for array, text, place in self._placed:
            begin = start + place
            if array.dtype.hasobject:
                memory[begin : begin + len(text)] = np.frombuffer(text, np.uint8)
            else:
                tensor_view(memory, begin, array.dtype, array.shape)[...] = array


def read_part(memory: Array, dtypes: Sequence[np.dtype[Any]]) -> list[Array]:
    """Return the outputs at the beginning of `memory` (bytes): views, but for text."""
    words = memory.data[: len(memory) // WORD * WORD].cast("q")
    arrays = []
    at = 1
    for dtype in dtypes:
        offset, length, rank = words[at : at + 3]
        shape = tuple(words[at + 3 : at + 3 + rank])
        at += 3 + rank
        if dtype == TEXT:
            text = memory[offset : offset + length].tobytes()
            arrays.append(decode_bytes(text, math.prod(shape)).reshape(shape))
        else:
            arrays.append(tensor_view(memory, offset, dtype, shape))
    return arrays
