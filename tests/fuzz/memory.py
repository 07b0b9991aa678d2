"""Random operations on the memory of slots and links, beside a list of what is held."""

from __future__ import annotations

import math

import numpy as np
from inferd_engines.engine import RowSpec
from inferd_server.batching.lanes import Lane, LanePool, PrivateMemory
from inferd_server.batching.slots import Arena, NoRoom, Slot
from inferd_server.processes.link.inputs import SMALLEST, Blocks, class_of
from inferd_server.processes.link.outputs import AnswerRing

from tests.fuzz.operations import Choices

SIZE = 16 * SMALLEST
RING = 1000
CAPACITY = 23
MAX_ROWS, MAX_BYTES, KEPT_BYTES = 12, 800, 300
SHAPES: list[list[RowSpec]] = [
    [(np.dtype(np.float32), (2,)), (np.dtype(np.int64), ())],
    [(np.dtype(np.uint8), (90,))],
    [(np.dtype(np.object_), (2,))],
    [(np.dtype(np.float32), (0,))],
]


def weight(specs: list[RowSpec], rows: int) -> int:
    """Return the bytes of so many rows."""
    return rows * sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs)


def apart(held: dict[int, int], start: int, size: int) -> bool:
    """True if a new piece overlaps none that is held."""
    return all(start + size <= s or s + n <= start for s, n in held.items())


def blocks(data: bytes) -> None:
    """Take and give back blocks: no overlap, no leak, within the memory."""
    choices, made = Choices(data), Blocks(SIZE)
    held: dict[int, int] = {}
    while not choices.over:
        if choices.byte() & 1 and held:
            start = choices.one_of(sorted(held))
            made.give_back(start)
            del held[start]
        else:
            whole = class_of(choices.number(0, 2 * SIZE))
            place = made.take(whole)
            # A block of this class is free somewhere unless every place for one meets another.
            free = any(apart(held, at, whole) for at in range(0, SIZE - whole + 1, whole))
            assert (place is not None) == free
            if place is not None:
                assert place % whole == 0
                assert place + whole <= SIZE
                assert apart(held, place, whole)
                held[place] = whole
        assert made.held == sum(held.values())
    for start in held:
        made.give_back(start)
    assert made.take(SIZE) == 0


def ring(data: bytes) -> None:
    """Place parts in the ring of answers: no overlap with what was not consumed."""
    choices, made = Choices(data), AnswerRing(RING)
    number = consumed = 0
    held: list[tuple[int, int, int]] = []
    while not choices.over:
        consumed = min(number, consumed + choices.number(0, 5))
        made.release(consumed)
        held = [part for part in held if part[0] > consumed]
        size = choices.number(1, RING)
        count = choices.number(1, 3)
        place = made.place(size, number + count)
        if place is None:
            assert held, "an empty ring has no room"
            continue
        number += count
        start = place % RING
        assert start + size <= RING
        assert apart({s: n for _, s, n in held}, start, size)
        held.append((number, start, size))


def lane(data: bytes) -> None:
    """Reserve and release rows of a lane: no overlap, and idle exactly when nothing is held."""
    choices = Choices(data)
    specs = SHAPES[0]
    made = Lane(PrivateMemory().take(specs, CAPACITY, 0), CAPACITY)
    held: dict[int, int] = {}
    while not choices.over:
        if choices.byte() & 1 and held:
            start = choices.one_of(sorted(held))
            made.release(start)
            del held[start]
        else:
            rows = choices.number(1, CAPACITY + 1)
            place = made.reserve(rows)
            if place is not None:
                assert place + rows <= CAPACITY
                assert apart(held, place, rows)
                held[place] = rows
            else:
                assert held or rows > CAPACITY
        assert made.idle == (not held)


def arena(data: bytes) -> None:
    """Reserve, write and free slots: bounds hold, and what was written stays until it is freed."""
    choices, made = Choices(data), Arena(MAX_ROWS, MAX_BYTES, LanePool(PrivateMemory(), KEPT_BYTES))
    held: list[tuple[Slot, int]] = []
    serial = 0
    while not choices.over:
        if choices.byte() & 1 and held:
            held.pop(choices.number(0, len(held) - 1))[0].free()
        else:
            specs, rows = choices.one_of(SHAPES), choices.number(1, 6)
            nbytes = weight(specs, rows)
            total = sum(s.nbytes for s, _ in held) + nbytes
            fits = made.rows + rows <= MAX_ROWS and total <= MAX_BYTES
            try:
                slot = made.reserve(specs, rows, nbytes)
            except NoRoom:
                assert not fits
                continue
            assert fits
            serial = serial % 250 + 1
            for array in slot.inputs:
                array[...] = serial
            held.append((slot, serial))
        assert made.rows == sum(slot.rows for slot, _ in held)
        assert all((a == value).all() for slot, value in held for a in slot.inputs)
    for slot, _ in held:
        slot.free()
        slot.free()
    assert made.rows == 0
