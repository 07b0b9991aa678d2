"""What TensorRT says while it works: the only place where the reason of a failure stands."""

from __future__ import annotations

import logging
import threading
from collections import deque
from functools import cache
from typing import Any, NamedTuple

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


class Line(NamedTuple):
    """Something that was said, and the how many-th thing that was."""

    number: int
    error: bool
    text: str


class Recording:
    """The last lines of a logger and the errors of a recorder. Any thread may call."""

    def __init__(self, kept: int = KEPT) -> None:
        """Remember nothing yet; `kept` lines at most, those of errors and warnings."""
        self._lines: deque[Line] = deque(maxlen=kept)
        self._errors: deque[tuple[int, str]] = deque(maxlen=kept)
        self._overflowed = False
        self._count = 0
        self._begun = 0
        self._lock = threading.Lock()

    def begin(self) -> int:
        """Let explanations begin with what is said from now on; return that place."""
        self._begun = self._count
        return self._begun

    def said(self, severity: str, text: str) -> None:
        """Take a line of the logger."""
        level = LEVELS.get(severity, logging.ERROR)
        log.log(level, text)
        if level >= logging.WARNING:
            self._add(level >= logging.ERROR, text)

    def failed(self, code: int, text: str) -> None:
        """Take an error of the recorder."""
        self._add(True, text)
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
        """Forget the errors, and everything that was said."""
        with self._lock:
            self._lines.clear()
            self._errors.clear()
            self._overflowed = False

    def told(self, since: int | None = None) -> list[str]:
        """Return the errors since a place, or since the last one: warnings are none."""
        return self._texts(since, warnings=False)

    def explain(self, what: str, since: int | None = None) -> str:
        """Return a sentence with what was said since a place, or since the last one."""
        texts = self._texts(since, warnings=True)
        return f"{what}: {' | '.join(texts)}" if texts else f"{what}, and did not say why"

    def _texts(self, since: int | None, *, warnings: bool) -> list[str]:
        """Return what was said, the same text once."""
        place = self._begun if since is None else since
        with self._lock:
            found = [line for line in self._lines if line.number > place and line.text]
        return list(dict.fromkeys(line.text for line in found if line.error or warnings))

    def _add(self, error: bool, text: str) -> None:
        with self._lock:
            self._count += 1
            self._lines.append(Line(self._count, error, text.strip()))


class Listeners:
    """The recording of each thread, to which a process' one logger hands on what is said there."""

    def __init__(self) -> None:
        self._thread = threading.local()
        self._latest = Recording()

    def listen(self, recording: Recording) -> None:
        """Let a recording have what is said on this thread, until another one does."""
        self._thread.recording = recording
        self._latest = recording

    def said(self, severity: str, text: str) -> None:
        """Hand a line on; from threads of TensorRT's own to who listened last."""
        getattr(self._thread, "recording", self._latest).said(severity, text)


@cache
def logger_of(trt: Any) -> Any:
    """Return the one logger for a TensorRT, which lives as long as the process.

    TensorRT keeps a pointer to the first logger that it is ever given, and uses it for everybody.
    `listeners` of it says who is told.

    Args:
        trt: the module, whose own class has to be the base.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.listeners = Listeners()

        def log(self, severity: Any, text: str) -> None:
            self.listeners.said(getattr(severity, "name", str(severity)), text)

    return Logger()


def listeners_of(trt: Any) -> Listeners:
    """Return the recordings that a TensorRT's logger tells."""
    found: Listeners = logger_of(trt).listeners
    return found


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
