"""Which requests are refused, and for how long."""

from __future__ import annotations

import numpy as np
from inferd.tensors import Array
from inferd_server.processes.quarantine import MOST, Quarantine, fingerprint

from tests.fakes.clock import FakeClock

ROW = np.ones((1, 4), np.float32)


def text(*words: bytes) -> Array:
    return np.array(words, dtype=object)


def test_equal_requests_have_one_fingerprint_and_others_another() -> None:
    marks = [
        fingerprint("m", 1, [ROW]),
        fingerprint("m", 2, [ROW]),
        fingerprint("n", 1, [ROW]),
        fingerprint("m", 1, [ROW * 2]),
        fingerprint("m", 1, [ROW.reshape(4, 1)]),
        fingerprint("m", 1, [ROW.view(np.int32)]),
        fingerprint("m", 1, [ROW, ROW]),
        fingerprint("m", 1, [text(b"a", b"b")]),
        fingerprint("m", 1, [text(b"ab", b"")]),
    ]
    assert len(set(marks)) == len(marks)
    assert marks[0] == fingerprint("m", 1, [ROW.copy()])
    assert marks[7] == fingerprint("m", 1, [text(b"a", b"b")])


def test_a_request_is_refused_until_its_time_is_over() -> None:
    clock = FakeClock(1.0)
    made = Quarantine(60.0, clock)
    assert not made.active
    assert made.refusal("m", 1, [ROW]) is None
    until = made.add(fingerprint("m", 1, [ROW]))
    assert until == 61.0
    clock.advance(20.0)
    error = made.refusal("m", 1, [ROW])
    assert error is not None
    assert (error.reason, error.facts) == ("QUARANTINED", {"model": "m", "retry_after_s": "40"})
    assert made.refusal("m", 1, [ROW * 2]) is None
    clock.advance(40.0)
    assert made.refusal("m", 1, [ROW]) is None
    assert not made.active


def test_nothing_is_read_while_nothing_is_refused() -> None:
    made = Quarantine(60.0, FakeClock())
    inputs = [Unreadable()]
    assert made.refusal("m", 1, inputs) is None  # type: ignore[arg-type]


class Unreadable:
    """Fails whoever looks at it."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)


def test_another_process_learns_what_is_refused() -> None:
    clock = FakeClock(1.0)
    first, second = Quarantine(60.0, clock), Quarantine(60.0, clock)
    first.add(fingerprint("m", 1, [ROW]))
    second.learn(first.marks())
    assert second.refusal("m", 1, [ROW]) is not None
    clock.advance(60.0)
    third = Quarantine(60.0, clock)
    third.learn(first.marks())
    assert not third.active


def test_the_oldest_are_forgotten_where_there_are_too_many() -> None:
    made = Quarantine(60.0, FakeClock())
    for number in range(MOST + 1):
        made.add(fingerprint(str(number), 1, []))
    assert len(made.marks()) == MOST
    assert made.refusal("0", 1, []) is None
    assert made.refusal("1", 1, []) is not None
