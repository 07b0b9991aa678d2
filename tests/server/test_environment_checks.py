"""What the environment asked for and did not get is said, with what it costs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
from inferd_server.environment import (
    PROBE_BYTES,
    WANTED,
    Heap,
    heap_problem,
    listener_problem,
    probe_heap,
    protobuf_problem,
)

from tests.server.lifecycle.process import SOURCES

BEFORE = Heap(mapped=0, size=100, used=50)
FROM_THE_HEAP = Heap(mapped=0, size=100 + PROBE_BYTES, used=50 + PROBE_BYTES)
KEPT = Heap(mapped=0, size=100 + PROBE_BYTES, used=50)
MAPPED = Heap(mapped=PROBE_BYTES, size=100, used=50)
PROBE = """
from inferd_server.environment import heap_problem, probe_heap
from inferd_server.environment import WANTED
print(heap_problem(WANTED, probe_heap()))
"""


def malloc_settings() -> dict[str, str]:
    return {name: value for name, value in WANTED.items() if name.startswith("MALLOC_")}


def printed(environment: Mapping[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", PROBE],
        env={"PYTHONPATH": SOURCES, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def test_protobuf_in_python_is_a_problem_and_says_who_asked_for_it() -> None:
    assert protobuf_problem({}, "upb") == ""
    asked = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    assert "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION is 'python'" in protobuf_problem(asked, "python")
    assert "no other" in protobuf_problem({}, "python")


def test_a_listener_that_is_off_is_no_problem() -> None:
    assert listener_problem(WANTED, 0.0) == ""
    assert listener_problem(WANTED, 0.1) == ""


def test_a_listener_that_is_on_is_one_only_where_it_was_to_be_off() -> None:
    assert "processor time" in listener_problem(WANTED, 3.4)
    assert "processor time" in listener_problem(
        {"GRPC_EXPERIMENTS": "other,-event_engine_listener"}, 3.4
    )
    assert listener_problem({"GRPC_EXPERIMENTS": ""}, 3.4) == ""
    assert listener_problem({}, 3.4) == ""


def test_a_heap_that_keeps_a_large_block_is_no_problem() -> None:
    assert heap_problem(WANTED, (BEFORE, FROM_THE_HEAP, KEPT)) == ""


@pytest.mark.parametrize(
    ("heaps", "words"),
    [
        ((BEFORE, MAPPED, BEFORE), "maps each large buffer anew"),
        ((BEFORE, FROM_THE_HEAP, BEFORE), "gives large buffers back"),
        ((BEFORE, BEFORE, BEFORE), "not glibc's"),
        (None, "unknown"),
    ],
)
def test_a_heap_that_is_not_as_asked_is_described(
    heaps: tuple[Heap, Heap, Heap] | None, words: str
) -> None:
    assert words in heap_problem(WANTED, heaps)
    # The operator chose otherwise.
    assert heap_problem({**WANTED, "MALLOC_TOP_PAD_": "0"}, heaps) == ""
    assert heap_problem({}, heaps) == ""


def test_the_real_allocator_tells_whether_the_settings_have_their_effect() -> None:
    if probe_heap() is None:
        pytest.skip("the C library is not glibc 2.33 or later")
    assert printed(malloc_settings()) == ""
    assert "maps each large buffer anew" in printed({})
    trimming = {**malloc_settings(), "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_TOP_PAD_": "0"}
    assert "gives large buffers back" in printed(trimming)
