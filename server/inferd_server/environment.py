"""What must be set before a server runs: the environment of gRPC and the allocator, and Python.

Measured (docs/benchmarks.md): without gRPC's event-engine listener a request costs a quarter
less processor time; with an allocator that keeps large buffers, messages of 600 KB cost half.
What the memory kept can grow to is bounded by `max_in_flight_bytes`. `effects` checks at the
start whether all this had its effect.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

KEPT = str(1 << 30)
LISTENER_OFF = "-event_engine_listener"
WANTED: Mapping[str, str] = {
    # Socket reads and writes happen on the thread that polls, not on gRPC's own.
    "GRPC_EXPERIMENTS": LISTENER_OFF,
    # Large buffers come from the heap and stay there, instead of being mapped anew each time.
    "MALLOC_MMAP_THRESHOLD_": KEPT,
    "MALLOC_TRIM_THRESHOLD_": KEPT,
    "MALLOC_TOP_PAD_": str(64 << 20),
    # By default eight for each core, and what models and messages leave at the end of each but the
    # first never goes back: 600 messages of other sizes left 29 MB, and leave 5. Four threads with
    # an engine each took as much processor time with 1, 4 and 16.
    "MALLOC_ARENA_MAX": "1",
    # gRPC's own lines would stand between those of the log.
    "GRPC_VERBOSITY": "ERROR",
}


COLLECT_AFTER = 10_000
"""Objects more than before, after which Python looks for cycles among the new ones.

Requests leave none, but at Python's own 700 a few dozen of them in flight had it look all the time:
4 % of the processor time of a small one.
"""


def collect_seldom() -> None:
    """Let Python look for cycles when there are many new objects only."""
    gc.set_threshold(COLLECT_AFTER)


def occupy() -> None:
    """Open what is closed of standard input, output and error, as by `2>&-`.

    The next file or connection would get the number, and native code would write its complaints
    into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # As a stream it stays missing, for Python looked before.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def lacking(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what must be added; what the operator set stays as it is."""
    return {name: value for name, value in WANTED.items() if name not in environment}


def prepare() -> None:
    """Start this very command anew, with the same process id, if anything is lacking."""
    occupy()
    missing = lacking(os.environ)
    if missing:
        command = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **missing})  # noqa: S606 no shell


# The largest size from which glibc may raise its own threshold for mapping is 32 MiB.
PROBE_BYTES = 33 << 20
# Measured: 3.4 or more with the listener, 0.0 without; see transport/making.py.
WAKEUPS = 0.5

LISTENER_COST = (
    "gRPC handles sockets on threads of its own though it was told not to; a request costs about "
    "a third more processor time"
)
PROTOBUF_RUNTIME = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
PROTOBUF_COST = "protobuf runs in Python, which makes a request cost several times as much"
HEAP_COST = "; messages of 600 KB cost up to twice the processor time"


class MallocInfo(ctypes.Structure):
    """What mallinfo2 returns; bytes, where it is not a number of pieces. Source: malloc.h."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd",
            "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Heap:
    """Bytes that the allocator holds: pieces mapped one by one, the heap, what is used of it."""

    mapped: int
    size: int
    used: int


def listener_problem(environment: Mapping[str, str], wakeups: float) -> str:
    """Return what is wrong with gRPC's listener, or "" if it is as asked.

    Args:
        environment: of this process.
        wakeups: of gRPC's own threads for each exchange of frames.
    """
    asked = LISTENER_OFF in environment.get("GRPC_EXPERIMENTS", "").split(",")
    return LISTENER_COST if asked and wakeups > WAKEUPS else ""


def protobuf_problem(environment: Mapping[str, str], runtime: str) -> str:
    """Return what is wrong with the runtime of protobuf, or "" if it is a compiled one.

    Args:
        environment: of this process.
        runtime: "python" or the name of a compiled one.
    """
    if runtime != "python":
        return ""
    asked = environment.get(PROTOBUF_RUNTIME, "")
    return PROTOBUF_COST + (f": {PROTOBUF_RUNTIME} is {asked!r}" if asked else ": it has no other")


def heap_problem(environment: Mapping[str, str], heaps: tuple[Heap, Heap, Heap] | None) -> str:
    """Return what is wrong with the allocator, or "" if it is as asked.

    Args:
        environment: of this process.
        heaps: before, with and after a block of `PROBE_BYTES`; None: the allocator cannot tell.
    """
    names = [name for name in WANTED if name.startswith("MALLOC_")]
    if any(environment.get(name) != WANTED[name] for name in names):
        # The operator's choice, or not asked for.
        return ""
    if heaps is None:
        return "the C library is not glibc 2.33 or later: whether MALLOC_* has an effect is unknown"
    before, during, after = heaps
    mapped, used = during.mapped - before.mapped, during.used - before.used
    # Half, because other threads use the heap, too.
    if mapped + used < PROBE_BYTES // 2:
        return "the allocator is not glibc's, and MALLOC_* means nothing to it"
    if mapped >= PROBE_BYTES:
        return "the allocator maps each large buffer anew though it was told not to" + HEAP_COST
    if after.size < during.size:
        return "the allocator gives large buffers back though it was told not to" + HEAP_COST
    return ""


def probe_heap() -> tuple[Heap, Heap, Heap] | None:
    """Look at the heap before, with and after a large block; None without glibc 2.33 or later."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = MallocInfo
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    before = _heap(libc.mallinfo2())
    block = libc.malloc(PROBE_BYTES)
    during = _heap(libc.mallinfo2())
    libc.free(block)
    return before, during, _heap(libc.mallinfo2())


def _heap(info: MallocInfo) -> Heap:
    return Heap(mapped=info.hblkhd, size=info.arena, used=info.uordblks)
