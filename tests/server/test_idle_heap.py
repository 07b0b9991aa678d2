"""When memory is given back to the system."""

from __future__ import annotations

import ctypes

from inferd_server.memory import WORTHWHILE_BYTES, Idleness, give_back, resident_bytes

LARGE = WORTHWHILE_BYTES


def test_memory_is_given_back_once_nothing_has_arrived_and_nothing_is_held() -> None:
    idleness = Idleness()
    assert not idleness.over(LARGE, 5)
    assert not idleness.over(LARGE, 5)
    assert idleness.over(LARGE, 0)
    assert not idleness.over(LARGE, 0)


def test_not_while_requests_come() -> None:
    idleness = Idleness()
    for looks in range(1, 5):
        assert not idleness.over(looks * LARGE, 0)
    assert idleness.over(4 * LARGE, 0)


def test_not_for_a_little() -> None:
    idleness = Idleness()
    for _ in range(3):
        assert not idleness.over(LARGE - 1, 0)
    idleness.over(LARGE, 0)
    assert idleness.over(LARGE, 0)
    for _ in range(3):
        assert not idleness.over(2 * LARGE - 1, 0)


def test_a_trim_gives_back_what_is_free_in_the_middle_of_the_heap() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    # Small enough for the heap whatever the threshold, and many.
    blocks = [libc.malloc(100_000) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident_bytes()
    give_back()
    assert before - resident_bytes() > 50_000_000
    libc.free(blocks[-1])
