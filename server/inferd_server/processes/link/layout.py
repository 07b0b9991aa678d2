"""Where things lie in the memory that one front shares with the worker.

    counters      one per cache line, each written by one side only
    submissions   ring of requests, written by the front
    marks         a byte for each ticket, written by the front: CANCELLED, ALONE, TRIAL
    begun         the ticket that last began to run in each place, written by the worker
    waiting       rows that wait for each model, of all fronts, written by the worker
    completions   ring of answers, written by the worker
    inputs        rows of requests; the front alone allocates here
    answers       rows of outputs; the worker alone allocates here, as a ring

A ticket is one place in flight: its remainder by the number of places, which bounds both rings.
No two requests of a link have the same ticket. Counters only grow; both sides run on one host,
so records are in its byte order and times on its monotonic clock.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from enum import IntEnum

LINE = 64
"""Bytes of a cache line; counters and tensors begin on one."""

CANCELLED, ALONE, TRIAL = 1, 2, 4
"""Marks of a ticket: its caller went away; it shares its run with no other; it is no caller's."""


class Counter(IntEnum):
    """Counters, by their place among words of 8 bytes: each has a cache line of its own."""

    SUBMITTED = 0
    """Requests that the front wrote."""
    COMPLETED = 8
    """Answers that the worker wrote."""
    CONSUMED = 16
    """Answers that the front has copied out."""
    ROOM_WANTED = 24
    """1 while the worker waits for the front to copy answers out."""
    SUSPECTS = 32
    """Requests that the front marked ALONE: while there was none, nobody looks for them."""
    WORKER_SLEEPS = 40
    """1 while the worker has to be woken for a request; else it looks by itself."""
    FRONT_LOOKS = 48
    """1 while the front looks for answers by itself, and need not be woken for one."""
    BUSY = 56
    """How busy the worker's engines are, in millionths; told every second."""


class Status(IntEnum):
    """How a request ended, as the worker tells it."""

    OK = 0
    CANCELLED = 1
    EXPIRED = 2
    FAILED = 3
    """The engine failed on it."""
    LOST = 4
    """The engine was lost."""
    RETIRED = 5
    """Its model version was replaced before it was taken: it may be admitted anew."""
    TOO_LARGE = 6
    """The outputs do not fit into the memory for answers."""
    CLOSED = 7
    """The model was unloaded before the request ran."""
    NO_SEQUENCE = 8
    """Its sequence is not known."""
    MANY_SEQUENCES = 9
    """No more sequences can be open."""
    BAD_INPUT = 10
    """Its values are none that the model can run on; its part of the answers says why."""


MILLION = 1_000_000
TICKET = 8
"""Bytes of a ticket."""
MODELS = 1024
"""Places for models; the number of one, and its rows, share 8 bytes that are written at once."""
MOST_ROWS = 2**32 - 1
SUBMISSION = struct.Struct("=QQQQdddIIII")
"""A request: ticket, lane, block, sequence, arrived, deadline, when it waits behind all others,
model, first row, rows, level."""
COMPLETION = struct.Struct("=QQddddIII4x")
"""An answer: ticket, part, seconds of queue, delay, gathering and computing, status, first row,
rows of the batch."""
DESCRIPTION = 4096
"""Bytes beside those that the settings bound: where the tensors of a block or a part begin."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of the parts; offsets follow from them."""

    requests: int
    """In flight at most."""
    input_bytes: int
    """A power of two."""
    answer_bytes: int

    @property
    def input_room(self) -> int:
        """Bytes in which inputs of `input_bytes` fit."""
        return self.input_bytes + DESCRIPTION

    @property
    def answer_room(self) -> int:
        """Bytes in which outputs of `answer_bytes` fit."""
        return self.answer_bytes + DESCRIPTION

    @property
    def submissions(self) -> int:
        """Offset of the ring of requests."""
        return LINE * len(Counter)

    @property
    def marks(self) -> int:
        """Offset of the marks."""
        return self.submissions + aligned(self.requests * SUBMISSION.size)

    @property
    def begun(self) -> int:
        """Offset of the tickets that began to run."""
        return self.marks + aligned(self.requests)

    @property
    def waiting(self) -> int:
        """Offset of the rows that wait."""
        return self.begun + aligned(self.requests * TICKET)

    @property
    def completions(self) -> int:
        """Offset of the ring of answers."""
        return self.waiting + MODELS * 8

    @property
    def inputs(self) -> int:
        """Offset of the rows of requests."""
        return page(self.completions + self.requests * COMPLETION.size)

    @property
    def answers(self) -> int:
        """Offset of the rows of outputs."""
        return page(self.inputs + self.input_room)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return page(self.answers + self.answer_room)


def aligned(size: int) -> int:
    """Round up to whole cache lines."""
    return (size + LINE - 1) // LINE * LINE


def page(size: int) -> int:
    """Round up to whole pages."""
    return (size + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
