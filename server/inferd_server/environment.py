"""What must be set before a server runs: the environment of gRPC and the allocator, and Python.

Measured (docs/benchmarks.md): without gRPC's event-engine listener a request costs a quarter
less processor time; with an allocator that keeps large buffers, messages of 600 KB cost half.
What the memory kept can grow to is bounded by `max_in_flight_bytes`. `effects` checks at the
start whether all this had its effect.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Mapping

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
