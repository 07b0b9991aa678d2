"""Three servers on fixed ports, replaced one after the other under callers that check."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

import numpy as np
from inferd_client import Client, InferdError

from tests.server.lifecycle.process import PATIENCE, Process
from tests.server.serving import samples

SERVERS = 3
PORTS = range(20_000, 32_000)
"""Below those that Linux gives to callers."""


class Member:
    """One server, started again and again on the same port."""

    def __init__(
        self, repository: Path, port: int, flags: Sequence[str] = (), host: str = "127.0.0.1"
    ) -> None:
        self.address = f"{host}:{port}"
        where = ("--host", host, "--grpc-port", str(port))
        where += ("--metrics-host", "127.0.0.1")
        self._flags = ("--model-repository", str(repository), *where, *flags)
        self._process = Process(*self._flags)
        self._metrics_port = 0

    def wait(self) -> None:
        """Return once it is ready."""
        self._metrics_port = self._process.wait_for("listening")["metrics_port"]
        self._process.wait_for("ready")

    def answers(self) -> float:
        """Return how many requests it answered since it started."""
        counted = samples(self._metrics_port).items()
        return sum(value for name, value in counted if name.startswith("inferd_requests_total{"))

    def restart(self) -> None:
        """End it as a rollout does, wait for its end, and start its successor."""
        self._process.terminate()
        assert self._process.exit_code() == 0
        self.kill()

    def kill(self) -> None:
        """End it without a word, and start its successor."""
        self.close()
        self.start()

    def start(self) -> None:
        """Start the successor of one that ended, and wait for it."""
        self._process = Process(*self._flags)
        self.wait()

    def close(self) -> None:
        self._process.__exit__()


@contextmanager
def cluster(repository: Path, *flags: str) -> Iterator[list[Member]]:
    """Start the servers and wait until all are ready."""
    with ready(Member(repository, port, flags) for port in free_ports(SERVERS)) as members:
        yield members


@contextmanager
def ready(starting: Iterable[Member]) -> Iterator[list[Member]]:
    """Wait until servers that are started are ready, and end them in the end."""
    with ExitStack() as stack:
        members = []
        for member in starting:
            stack.callback(member.close)
            members.append(member)
        for member in members:
            member.wait()
        yield members


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at, nor any caller is given while a server restarts."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
    return found


class Load:
    """Callers of one client, each with a request under way all the time."""

    def __init__(self, target: str, callers: int = 4, **options: bool) -> None:
        self.codes: Counter[str] = Counter()
        self.failures: list[str] = []
        self._client = Client(target, timeout=PATIENCE, **options)
        self._stop = threading.Event()
        self._answered = threading.Condition()
        self._threads = [
            threading.Thread(target=self._call, args=(seed,)) for seed in range(callers)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        self._client.close()
        assert not any(thread.is_alive() for thread in self._threads), "a caller hangs"

    def answered(self, count: int) -> None:
        """Wait until so many more calls were answered well."""
        with self._answered:
            wanted = self.codes["OK"] + count
            assert self._answered.wait_for(lambda: self.codes["OK"] >= wanted, PATIENCE), self.codes

    def _call(self, seed: int) -> None:
        generator = np.random.default_rng(seed)
        while not self._stop.is_set():
            rows = generator.integers(0, 1000, (generator.integers(1, 5), 4)).astype(np.float32)
            try:
                result = self._client.infer("scaled", INPUT0=rows)
            except InferdError as error:
                self._count(error.code, f"{error.code}: {error.message}")
            else:
                right = np.array_equal(result["OUTPUT0"], 2 * rows)
                self._count("OK", "" if right else f"{rows} gave {result['OUTPUT0']}")

    def _count(self, code: str, failure: str) -> None:
        with self._answered:
            self.codes[code] += 1
            if failure:
                self.failures.append(failure)
            self._answered.notify_all()
