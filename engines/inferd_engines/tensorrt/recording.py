"""What TensorRT says while it works: the only place where the reason of a failure stands."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import Any

log = logging.getLogger(__name__)
KEPT = 12
LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}
"""Severities of TensorRT, by name; its INFO is ten lines for every plan."""


class Recording:
    """The last lines of a logger and the errors of a recorder. Any thread may call."""

    def __init__(self, kept: int = KEPT) -> None:
        """Remember nothing yet; `kept` lines at most, those of errors and warnings first."""
        self._problems: deque[str] = deque(maxlen=kept)
        self._errors: deque[tuple[int, str]] = deque(maxlen=kept)
        self._overflowed = False
        self._lock = threading.Lock()

    def said(self, severity: str, text: str) -> None:
        """Take a line of the logger."""
        level = LEVELS.get(severity, logging.ERROR)
        log.log(level, text)
        if level >= logging.WARNING:
            with self._lock:
                self._problems.append(text.strip())

    def failed(self, code: int, text: str) -> None:
        """Take an error of the recorder."""
        with self._lock:
            self._overflowed = self._overflowed or len(self._errors) == self._errors.maxlen
            self._errors.append((code, text.strip()))

    @property
    def errors(self) -> list[tuple[int, str]]:
        """Code and text of the errors, oldest first."""
        with self._lock:
            return list(self._errors)

    @property
    def overflowed(self) -> bool:
        """True if there were more errors than are kept."""
        return self._overflowed

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._problems.clear()
            self._errors.clear()
            self._overflowed = False

    def explain(self, what: str) -> str:
        """Return a sentence with what was said last; the same text once."""
        with self._lock:
            texts = [*self._problems, *(text for _, text in self._errors)]
        texts = [text for text in dict.fromkeys(texts) if text]
        return f"{what}: {' | '.join(texts)}" if texts else f"{what}, and did not say why"


def logger_of(trt: Any, recording: Recording) -> Any:
    """Return a logger for TensorRT that tells a recording.

    Args:
        trt: the module, whose own class has to be the base.
        recording: gets every line.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            recording.said(getattr(severity, "name", str(severity)), text)

    return Logger()


def recorder_of(trt: Any, recording: Recording) -> Any:
    """Return an error recorder for TensorRT that tells a recording. Thread-safe, as it must be."""

    class Recorder(trt.IErrorRecorder):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IErrorRecorder.__init__(self)

        def num_errors(self) -> int:
            return len(recording.errors)

        def get_error_code(self, index: int) -> Any:
            return trt.ErrorCodeTRT(recording.errors[index][0])

        def get_error_desc(self, index: int) -> str:
            return recording.errors[index][1]

        def has_overflowed(self) -> bool:
            return recording.overflowed

        def clear(self) -> None:
            recording.clear()

        def report_error(self, code: Any, text: str) -> bool:
            recording.failed(int(code), text)
            return False

    return Recorder()
