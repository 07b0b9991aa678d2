"""Calls at fixed moments, however long the answers take, and how long each took."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from inferd_client import Client, InferdError

from tests.server.lifecycle.process import PATIENCE

CALLERS = 16


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one call."""

    at: float
    """When it was due, in monotonic seconds."""
    seconds: float
    """From then until the answer."""
    failure: str


class Paced:
    """Calls of one client, so many a second, or with no rate as many as there can be."""

    def __init__(
        self, client: Client, model: str, inputs: Mapping[str, Any], rate: float = math.inf
    ) -> None:
        self._call = lambda: client.infer(model, **inputs)
        self._begin = time.monotonic()
        self._due = (self._begin + number / rate for number in itertools.count())
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._answers: list[Answer] = []
        self._threads = [threading.Thread(target=self._work) for _ in range(CALLERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "a caller hangs"

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        self._over.wait(seconds)

    @property
    def failures(self) -> list[str]:
        return [answer.failure for answer in self._answers if answer.failure]

    def rate(self) -> float:
        """Return the answers a second of the whole time."""
        return len(self._answers) / (time.monotonic() - self._begin)

    def p99(self, since: float, until: float) -> float:
        """Return within which seconds 99 of 100 calls were answered that were due then."""
        taken = [answer.seconds for answer in self._answers if since <= answer.at < until]
        assert len(taken) >= 100, f"{len(taken)} calls are too few for a p99"
        return float(np.quantile(taken, 0.99))

    def _work(self) -> None:
        while True:
            with self._lock:
                due = next(self._due)
            if self._over.wait(max(0.0, due - time.monotonic())):
                return
            self._answers.append(self._one(due if due > self._begin else time.monotonic()))

    def _one(self, due: float) -> Answer:
        failure = ""
        try:
            self._call()
        except InferdError as error:
            failure = f"{error.code}: {error.message}"
        return Answer(due, time.monotonic() - due, failure)
