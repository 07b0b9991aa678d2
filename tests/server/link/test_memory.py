"""Memory of a link: blocks for inputs, a ring for outputs, and what is written into both."""

from __future__ import annotations

import math
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.tensors import DATATYPES, Array
from inferd_server.link.answers import AnswerRing, Part, read_part
from inferd_server.link.blocks import SMALLEST, Blocks, class_of
from inferd_server.link.layout import Layout
from inferd_server.link.memory import LinkMemory, create
from inferd_server.link.rows import InputMemory, SharedRows, read_rows

SIZE = 16 * SMALLEST


@given(st.lists(st.tuples(st.booleans(), st.integers(1, SIZE), st.integers(0, 99))))
def test_blocks_never_overlap_and_join_again(steps: list[tuple[bool, int, int]]) -> None:
    blocks = Blocks(SIZE)
    held: dict[int, int] = {}
    for take, size, which in steps:
        if take:
            start = blocks.take(size)
            if start is not None:
                whole = class_of(size)
                assert start % whole == 0
                assert all(start + whole <= s or s + n <= start for s, n in held.items())
                held[start] = whole
        elif held:
            start = sorted(held)[which % len(held)]
            blocks.give_back(start)
            del held[start]
        assert blocks.held == sum(held.values()) <= SIZE
    for start in list(held):
        blocks.give_back(start)
    assert blocks.take(SIZE) == 0


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 5)), max_size=60))
def test_parts_of_the_ring_never_overlap_what_was_not_consumed(
    steps: list[tuple[int, int]],
) -> None:
    ring = AnswerRing(1000)
    number, consumed = 0, 0
    held: list[tuple[int, int, int]] = []
    for size, consume in steps:
        consumed = min(number, consumed + consume)
        ring.release(consumed)
        held = [part for part in held if part[0] > consumed]
        place = ring.place(size, number + 1)
        if place is None:
            assert held
            continue
        number += 1
        start = place % 1000
        assert start + size <= 1000
        assert all(start + size <= s or s + n <= start for _, s, n in held)
        held.append((number, start, size))


def values(datatype: str, shape: tuple[int, ...]) -> Array:
    count = math.prod(shape)
    if datatype == "BYTES":
        return np.array([b"x" * n for n in range(count)], dtype=object).reshape(shape)
    return np.arange(count).astype(DATATYPES[datatype]).reshape(shape)


@pytest.mark.parametrize("datatype", DATATYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (3,), (2, 3, 1)])
def test_outputs_are_read_as_they_were_written(datatype: str, shape: tuple[int, ...]) -> None:
    outputs = [values(datatype, shape), values("FP32", (5, 2))[::2], values("BYTES", (2,))]
    part = Part(outputs)
    memory = np.zeros(part.size, np.uint8)
    part.write(memory, 0)
    got = read_part(memory, [array.dtype for array in outputs])
    for array, found in zip(outputs, got, strict=True):
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("datatype", DATATYPES)
def test_inputs_are_read_as_they_were_written(datatype: str) -> None:
    raw = np.zeros(SIZE, np.uint8)
    memory = InputMemory(raw)
    specs = [(DATATYPES[datatype], (2, 3)), (DATATYPES["INT64"], ())]
    rows = memory.take(specs, 4, 4096)
    assert isinstance(rows, SharedRows)
    rows.arrays[0][...] = values(datatype, (4, 2, 3))
    rows.arrays[1][...] = [1, 2, 3, 4]
    rows.seal()
    first, second = read_rows(raw, rows.block, [dtype for dtype, _ in specs])
    np.testing.assert_array_equal(first, values(datatype, (4, 2, 3)))
    assert second.tolist() == [1, 2, 3, 4]
    memory.give_back(rows)
    assert memory.held == 0


def test_what_no_block_holds_does_not_fit_and_is_not_given() -> None:
    memory = InputMemory(np.zeros(SIZE, np.uint8))
    specs = [(np.dtype(np.float32), (SIZE // 4,))]
    assert not memory.fits(specs, 1, SIZE)
    assert memory.take(specs, 1, SIZE) is None
    assert memory.fits([(np.dtype(np.float32), (4,))], 1, 16)


def test_memory_that_no_request_holds_goes_back_to_the_system_and_the_rest_stays() -> None:
    descriptor = create(Layout(16, 1 << 20, 1 << 16))
    link = LinkMemory(descriptor, Layout(16, 1 << 20, 1 << 16))
    memory = InputMemory(link.inputs, link.forget_inputs)
    specs = [(np.dtype(np.uint8), (100_000,))]
    held, others = memory.take(specs, 1, 0), [memory.take(specs, 1, 0) for _ in range(7)]
    for number, rows in enumerate([held, *others]):
        assert rows is not None
        rows.arrays[0][:] = number + 1
    full = os.fstat(descriptor).st_blocks
    for rows in others:
        assert rows is not None
        memory.give_back(rows)
    memory.trim()
    assert os.fstat(descriptor).st_blocks * 512 < full * 512 - 600_000
    assert held is not None
    assert (held.arrays[0] == 1).all()
    again = memory.take(specs, 1, 0)
    assert again is not None
    again.arrays[0][:] = 9
    assert (held.arrays[0] == 1).all()
    os.close(descriptor)


def test_only_whole_pages_of_free_memory_go_back() -> None:
    descriptor = create(Layout(16, 1 << 16, 1 << 16))
    link = LinkMemory(descriptor, Layout(16, 1 << 16, 1 << 16))
    link.inputs[:] = 1
    link.answers[:] = 1
    link.forget_inputs(100, 2 * SMALLEST)
    assert (link.inputs[:SMALLEST] == 1).all()
    assert (link.inputs[SMALLEST : 2 * SMALLEST] == 0).all()
    assert (link.inputs[2 * SMALLEST :] == 1).all()
    link.forget_inputs(0, 1 << 16)
    assert (link.answers == 1).all()
    os.close(descriptor)
