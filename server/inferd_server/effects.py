"""The check that what `environment` asked for is really so: said in the log where it is not.

Looked at: grpcio 1.85.1, glibc 2.36. A later grpcio may no longer know the experiment, and
says nothing then.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass

from inferd_server.environment import LISTENER_OFF, WANTED

# The largest size from which glibc may raise its own threshold for mapping is 32 MiB.
PROBE_BYTES = 33 << 20
# Measured: 3.4 or more with the listener, 0.0 without; see transport/listener.py.
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
