"""A double for a process of the server and the channel to it: it dies when a test says so."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

from inferd_server.errors import InferdError
from inferd_server.processes.channel import PeerLost
from inferd_server.processes.spawn import Child

WITHIN = 30.0


class FakeProcess:
    """As much of `subprocess.Popen` as `Children` uses."""

    def __init__(self) -> None:
        self.pid = 0
        self.killed = False
        self._ended = threading.Event()

    def kill(self) -> None:
        """End."""
        self.killed = True
        self._ended.set()

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it ended.

        Raises:
            subprocess.TimeoutExpired: it did not.
        """
        if not self._ended.wait(WITHIN if timeout is None else timeout):
            raise subprocess.TimeoutExpired("fake", timeout or WITHIN)
        return -9


class FakeChannel:
    """Remembers what it was told and asked.

    Questions are answered by `reply` where there is one, otherwise by the test.
    """

    def __init__(self) -> None:
        self.reply: Callable[[object], object] | None = None
        self.told: SimpleQueue[object] = SimpleQueue()
        self.asked: SimpleQueue[tuple[object, Future[Any]]] = SimpleQueue()
        self._open: list[Future[Any]] = []
        self._gone = threading.Event()

    def tell(self, body: object) -> None:
        """Remember."""
        self.told.put(body)

    def ask(self, body: object) -> Future[Any]:
        """Remember, and return what the test will settle."""
        future: Future[Any] = Future()
        self._open.append(future)
        self.asked.put((body, future))
        if self.reply is not None:
            try:
                future.set_result(self.reply(body))
            except InferdError as error:
                future.set_exception(error)
        return future

    def close(self) -> None:
        """Let the other end read that this one is gone."""
        self._gone.set()

    def read(self, handle: Callable[[object], object]) -> None:
        """Block until the process is gone."""
        del handle
        assert self._gone.wait(WITHIN), "the test never ended the process"
        for future in self._open:
            if not future.done():
                future.set_exception(PeerLost("gone"))


class FakeChild:
    """A process, and what it was told."""

    def __init__(self, role: str, index: int) -> None:
        self.process = FakeProcess()
        self.channel = FakeChannel()
        self.child = Child(role, index, self.process, self.channel)  # type: ignore[arg-type]

    def die(self) -> None:
        """Be gone, as after SIGKILL."""
        self.process.kill()
        self.channel.close()

    def hears(self) -> object:
        """Return the next message that it was told."""
        return self.channel.told.get(timeout=WITHIN)

    def is_asked(self) -> tuple[object, Future[Any]]:
        """Return the next question, and where its answer goes."""
        return self.channel.asked.get(timeout=WITHIN)
