"""What the end of a process means, by its exit code: pure functions."""

from __future__ import annotations

import os
import signal

HINTS = {
    signal.SIGKILL: "as the kernel does where memory runs out",
    signal.SIGSEGV: "a crash in native code",
    signal.SIGABRT: "native code gave up",
    signal.SIGBUS: "a crash in native code",
    signal.SIGILL: "code that this processor does not know",
    signal.SIGFPE: "a crash in native code",
}


def cause(code: int) -> str:
    """Say in words how a process ended.

    Args:
        code: its exit code; of a signal, the number with a minus.
    """
    if code == os.EX_SOFTWARE:
        return "its engine failed for good"
    if code >= 0:
        return f"it ended with exit code {code}"
    try:
        number = signal.Signals(-code)
    except ValueError:
        return f"killed by signal {-code}"
    hint = HINTS.get(number)
    return f"killed by {number.name}" + (f", {hint}" if hint else "")
