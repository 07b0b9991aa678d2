"""A Redis server of a test's own, on loopback, that can be killed and started again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ports import free_port

READY_WITHIN = 20.0


class RedisServer:
    """Listens on one port whenever it runs; keeps nothing on disk."""

    def __init__(self, folder: Path, *flags: str) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("not here: redis-server (the Debian package of that name)")
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._flags = flags
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, and return once it listens."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        options = ["--save", "", "--appendonly", "no", "--dir", str(self._folder)]
        self._process = subprocess.Popen(
            [*command, *options, *self._flags], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if "Ready to accept connections" in line:
                return
        raise AssertionError("redis-server ended before it listened")

    def kill(self) -> None:
        """Let it vanish."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def send(self, number: int) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)
