"""What a handle knows of the place where its requests wait, in this process or another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from inferd_engines.engine import Engine, Signature

from inferd_server.errors import NOTHING, InferdError
from inferd_server.scheduler.decision import Limits
from inferd_server.scheduler.job import Execution, Job
from inferd_server.scheduler.queue import BatchQueue
from inferd_server.worker.batch import BatchRunner
from inferd_server.worker.running import Running

Observer = Callable[[Execution], None]
Runner: TypeAlias = Running[Any]
"""Runs the decisions of the line that it was made for."""


class Refusable(Protocol):
    """Requests that can be answered with an error."""

    def fail(self, error: InferdError) -> None:
        """Answer."""


class Line(Protocol):
    """Where a model's requests wait. Any thread may call any method."""

    @property
    def waiting_requests(self) -> int:
        """Requests that wait here now for a run."""

    def submit(self, request: Job) -> bool:
        """Add a request; False once the line is closed."""

    def withdraw(self, request: Job) -> bool:
        """Take a request out that nobody waits for; True if the caller has to answer it."""

    def take(self, patience: float | None = None) -> Any:
        """Block until there is something to run or to drop; None once closed and empty.

        An empty decision after `patience` seconds without a request.
        """

    def park(self, wake: Callable[[], None]) -> bool:
        """Call back with the next request or the end; False if that is now."""

    def take_full(self) -> Any:
        """Return a batch that more requests would not make larger; None if there is none now."""

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Change the bounds of batches from now on; the delay in seconds."""

    def close(self) -> None:
        """Refuse new requests; those that wait are still handed out."""

    def drain(self) -> Sequence[Refusable]:
        """Close, and take out everything that waits."""


class Station(Protocol):
    """Makes lines, and what runs their decisions."""

    def line(self, signature: Signature, limits: Limits) -> Line:
        """Return the line of a new model version."""

    def runner(
        self,
        engine: Engine,
        line: Line,
        batched: bool,
        observer: Observer,
        about: Mapping[str, object] = NOTHING,
    ) -> Runner:
        """Return what an engine does with the decisions of a line; `about` goes into the log."""

    def number(self, line: Line) -> int:
        """Return the number by which other processes know the line; 0 if none does."""

    def settle(self) -> None:
        """Block until whoever sends requests knows the versions that serve now."""


class LocalStation:
    """Requests of this process."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def line(self, signature: Signature, limits: Limits) -> BatchQueue[Job]:
        """Return a queue."""
        del signature
        return BatchQueue(limits, self._clock)

    def runner(
        self,
        engine: Engine,
        line: Line,
        batched: bool,
        observer: Observer,
        about: Mapping[str, object] = NOTHING,
    ) -> Runner:
        """Return a runner of jobs."""
        del line
        return BatchRunner(engine, batched, observer, self._clock, about)

    def number(self, line: Line) -> int:
        """Nobody else knows it."""
        del line
        return 0

    def settle(self) -> None:
        """Do nothing: who sends requests here looks each time."""
