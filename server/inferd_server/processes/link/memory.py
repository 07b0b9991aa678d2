"""One front's shared memory, mapped: counters and arrays over it.

The memory has no name, only descriptors: the kernel frees it with the last process that has
one, however that process ends.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from itertools import chain
from struct import Struct
from typing import Any

import numpy as np
from inferd.tensors import Array

from inferd_server.processes.link.layout import (
    MODELS,
    MOST_ROWS,
    TICKET,
    Counter,
    Layout,
    page,
)


def create(layout: Layout) -> int:
    """Make the memory for one link and return its descriptor; pages cost nothing until written."""
    descriptor = os.memfd_create("inferd-link")
    os.truncate(descriptor, layout.size)
    return descriptor


class LinkMemory:
    """The memory of one link, as either side sees it."""

    def __init__(self, descriptor: int, layout: Layout, inputs: int | None = None) -> None:
        """Map it.

        Args:
            descriptor: of the link's own memory.
            layout: of both.
            inputs: descriptor of the memory whose inputs are this link's, too: a front has one for
                its links to all workers. None: the link's own.
        """
        self.layout = layout
        self._map = mmap.mmap(descriptor, layout.size)
        own = inputs is None or inputs == descriptor
        self._rows = self._map if own else mmap.mmap(inputs or 0, layout.size)
        whole = memoryview(self._map)
        self.bytes = whole
        self._counters = whole[: layout.submissions].cast("Q")
        self.marks = whole[layout.marks : layout.marks + layout.requests]
        self.begun = whole[layout.begun : layout.begun + layout.requests * TICKET].cast("Q")
        self._waiting = whole[layout.waiting : layout.waiting + MODELS * 8].cast("Q")
        self.inputs = np.frombuffer(self._rows, np.uint8, layout.input_room, layout.inputs)
        self.answers = np.frombuffer(whole, np.uint8, layout.answer_room, layout.answers)
        # Taking and releasing a lock keeps weakly ordered processors from swapping what is before
        # and after; a function around it would cost as much again, many times for every request.
        self._fence = threading.Lock()

    def read(self, counter: Counter) -> int:
        """Return a counter; what was written before it was advanced can be read then."""
        value = self._counters[counter]
        with self._fence:
            return value

    def advance(self, counter: Counter, count: int = 1) -> None:
        """Add to a counter: after everything that was written before, before what is read next."""
        with self._fence:
            pass
        self._counters[counter] += count
        with self._fence:
            pass

    def records(self, form: Struct, ring: int, first: int, end: int) -> Iterator[tuple[Any, ...]]:
        """Return the records between two positions of a ring, each read when it is asked for.

        Args:
            form: of a record.
            ring: its offset; it has room for all requests that may be in flight.
            first: position of the first record.
            end: position behind the last one.
        """
        size, width = self.layout.requests, form.size
        begin, count, room = first % size, end - first, size - first % size
        if count > room:
            rest = form.iter_unpack(self.bytes[ring : ring + (count - room) * width])
            return chain(self.records(form, ring, first, first + room), rest)
        start = ring + begin * width
        return form.iter_unpack(self.bytes[start : start + count * width])

    def tell_waiting(self, model: int, rows: int) -> None:
        """Tell how many rows wait for the model of a number."""
        self._waiting[model % MODELS] = model << 32 | min(rows, MOST_ROWS)

    def waiting(self, model: int) -> int:
        """Return how many rows wait for the model of a number; 0 if that is not told."""
        number, rows = divmod(self._waiting[model % MODELS], MOST_ROWS + 1)
        return rows if number == model else 0

    def forget_inputs(self, offset: int, size: int) -> None:
        """Return whole pages of inputs to the system; they read as zeros then, on both sides."""
        start = page(self.layout.inputs + offset)
        end = (self.layout.inputs + offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            self._rows.madvise(mmap.MADV_REMOVE, start, end - start)

    def forget_answers(self) -> None:
        """Return all pages of the answers to the system, of which none may be in use."""
        self._map.madvise(mmap.MADV_REMOVE, self.layout.answers, page(self.layout.answer_bytes))

    def tell(self, counter: Counter, value: int) -> None:
        """Set a counter that does not only grow: before what is read next."""
        self._counters[counter] = value
        with self._fence:
            pass

    def reset(self) -> None:
        """Begin anew; neither side may be at work."""
        for counter in Counter:
            self._counters[counter] = 0
        self.marks[:] = bytes(len(self.marks))
        self.begun[:] = memoryview(bytes(self.begun.nbytes)).cast("Q")
        self._waiting[:] = memoryview(bytes(self._waiting.nbytes)).cast("Q")


def tensor_view(memory: Array, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return the elements at an offset of some memory (bytes) as an array."""
    return np.ndarray(shape, dtype, memory.data, offset)
