"""The server as its users run it: a process on free ports, known by what it logs."""

from __future__ import annotations

import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class ServerProcess:
    """`python -m inferd_server` over a model repository."""

    def __init__(
        self,
        repository: Path,
        *flags: str,
        program: Sequence[str] = (sys.executable, "-m", "inferd_server"),
    ) -> None:
        command = [*program, "--model-repository", str(repository)]
        command += ["--grpc-port", "0", "--metrics-port", "0", "--log-format", "json", *flags]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        # Read to the end, so that a full pipe never blocks the server.
        self._reader = threading.Thread(target=self._read, name="server log")
        self._reader.start()

    def wait_for(self, message: str, timeout: float = START_TIMEOUT) -> Mapping[str, Any]:
        """Return the next log line with this message, which comes within so many seconds.

        Raises:
            AssertionError: it does not come; the text is what came instead.
        """
        seen: list[str] = []
        until = time.monotonic() + timeout
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no log line {message!r}, but {seen}") from None
            seen.append(line)
            fields = parse(line)
            if fields.get("message") == message:
                return fields
            assert line, f"the server ended before {message!r}: {seen}"

    def stop(self) -> int:
        """Ask the process to stop, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_TIMEOUT)
        finally:
            # Harmless after a clean end; a server that hangs must not outlive its test.
            self._process.kill()
            self._process.wait()
            self._reader.join()

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")


def parse(line: str) -> Mapping[str, Any]:
    """Return the fields of a log line; none of a line that a library wrote."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}
