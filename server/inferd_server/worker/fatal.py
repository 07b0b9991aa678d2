"""The end of a process whose engine failed for good: at once, and nothing is cleaned up.

Such an error stays in the CUDA context of the process: every later call fails or hangs, `close`
among them, and so does the way out of the interpreter. What runs then is not answered here; who
sent it learns that the process is gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable
from typing import TypeGuard

from inferd_engines.engine import EngineError

log = logging.getLogger(__name__)
EXIT_CODE = os.EX_SOFTWARE
"""Of a process that ended itself after a fatal engine error."""
End = Callable[[EngineError], None]
"""Ends the process; where it returns, the instance ends alone."""


def is_fatal(error: BaseException) -> TypeGuard[EngineError]:
    """True for an error of an engine after which it can run nothing more."""
    return isinstance(error, EngineError) and error.fatal


def end_process(error: EngineError) -> None:
    """End this process with `EXIT_CODE`, its log written."""
    log.critical("the engine failed for good: the process ends", extra={"error": str(error)})
    with contextlib.suppress(OSError):
        # Full, most likely.
        sys.stderr.flush()
    # Python's own way out would call into the engine again.
    os._exit(EXIT_CODE)


def go_on(error: EngineError) -> None:
    """Let the process live, and its other engines."""
    del error
