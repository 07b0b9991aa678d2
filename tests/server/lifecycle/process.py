"""A server as a process of its own, followed by its log."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 20.0
ROOT = Path(__file__).parents[3]
FOLDERS = ("", "client", "engines", "proto", "seal", "server", "store")
SOURCES = os.pathsep.join(str(ROOT / name) for name in FOLDERS)


class Process:
    """`python -m inferd_server` with its JSON log."""

    def __init__(
        self,
        *flags: str,
        environment: dict[str, str] | None = None,
        module: str = "inferd_server",
    ) -> None:
        ports = ("--grpc-port", "0", "--metrics-port", "0", "--log-format", "json")
        # Nothing is left in the home of whoever runs the tests.
        ports += ("--verdict-store", "")
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *ports, *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environment() | (environment or {}),
        )
        self.lines: list[str] = []
        self._arrived: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def wait_for(self, message: str) -> dict[str, Any]:
        """Return the next log line with that message."""
        while (line := self._arrived.get(timeout=PATIENCE)) is not None:
            entry: dict[str, Any] = json.loads(line)
            if entry["message"] == message:
                return entry
        code = self.exit_code()
        raise AssertionError(f"the process ended ({code}) without {message!r}: {self.lines}")

    def terminate(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def exit_code(self) -> int:
        """Wait for the end."""
        return self._process.wait(PATIENCE)

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            self._arrived.put(line)
        self._arrived.put(None)


@contextmanager
def ready_process(
    repository: Path,
    *flags: str,
    module: str = "inferd_server",
    environment: dict[str, str] | None = None,
) -> Iterator[tuple[Process, dict[str, Any]]]:
    """Start a process and wait until it is ready; gives it and where it listens."""
    where_from = ("--model-repository", str(repository))
    with Process(*where_from, *flags, module=module, environment=environment) as process:
        where = process.wait_for("listening")
        process.wait_for("ready")
        yield process, where


def finished(*flags: str, module: str = "inferd_server") -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", module, *flags],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(),
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of this server."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    return kept | {"PYTHONPATH": SOURCES, "PYTHONWARNINGS": "error"}
