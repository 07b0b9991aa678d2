"""Sends requests to a worker, and once more, to another or the next one, if it dies."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

from inferd_server.batching.decision import expired
from inferd_server.batching.job import Job
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    QueueFull,
    SequenceNotFound,
    WorkerLost,
)
from inferd_server.processes.front_links import FrontLinks, Line
from inferd_server.processes.link.inputs import InputMemory
from inferd_server.processes.link.pending import NEW, LinkTarget, Lost
from inferd_server.processes.quarantine import Quarantine, fingerprint, quarantined
from inferd_server.sequences.store import ANEW

START_S = 1.0
"""What a worker takes to start at least: a deadline before that is not waited for."""
RUNS = 2
"""Deaths in a request's run after which it is held to be their cause."""
SENDS = 8
"""Workers that a request is sent to at most, where others ended them before its turn."""


class Fate(Enum):
    """What to do with a request."""

    RETRY = "retry"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    POISON = "poison"
    STATELESS = "stateless"
    LOST = "lost"


def fate(lost: Lost, now: float, wait_s: float, elsewhere: bool = False) -> Fate:
    """Decide what becomes of a request whose worker died.

    It may begin to run twice. The second time it runs alone, so that a worker that dies then died
    of it. A step of a sequence runs once: what it built on died with the worker.

    Args:
        lost: the request, and how often it was sent and began to run.
        now: monotonic seconds.
        wait_s: seconds that it may wait for another worker; 0: not at all.
        elsewhere: another worker serves its model, so that it need not wait.
    """
    job, history = lost.job, lost.history
    if history.begun >= RUNS:
        return Fate.POISON
    if job.cancelled:
        return Fate.CANCELLED
    if expired(job, now):
        return Fate.EXPIRED
    if job.sequence:
        return Fate.STATELESS
    late = not elsewhere and job.deadline is not None and job.deadline < now + START_S
    return Fate.LOST if late or not wait_s or history.sent >= SENDS else Fate.RETRY


def worker_lost(reason: str, lost: Lost, why: str) -> WorkerLost:
    """Return the error for a request that is not sent again.

    Args:
        reason: what happened to the worker.
        lost: the request.
        why: it is not sent again.
    """
    history = lost.history
    return WorkerLost(
        f"{reason}; {why}; the request may be sent again",
        facts={"sent": str(history.sent), "began": str(history.begun)},
    )


log = logging.getLogger(__name__)
Successor = Callable[[LinkTarget], Line | InferdError | None]
"""Finds the line that takes the same requests as another, whose worker died.

None: not yet; an error: there will be none.
"""
Later = Callable[[float, Callable[[], None]], None]


@dataclass(frozen=True, slots=True)
class HeldRequest:
    """A request that waits for the next worker."""

    lost: Lost
    until: float
    """When it is answered at the latest, in monotonic seconds."""


class RetryingLink:
    """A front's way to the workers. Any thread may call any method.

    Requests whose worker died, and those that come before the next one serves their model, keep
    their slots, which are the front's own memory, and wait here.
    """

    def __init__(
        self,
        link: FrontLinks,
        quarantine: Quarantine,
        wait_s: float,
        clock: Callable[[], float],
        later: Later,
        found: Callable[[bytes, float], None] = lambda _mark, _until: None,
    ) -> None:
        """Begin with nothing in flight.

        Args:
            link: to the workers.
            quarantine: of requests that are not to run.
            wait_s: seconds that a request may wait for the next worker; 0: none is sent again.
            clock: monotonic seconds.
            later: calls a function after some seconds, on another thread.
            found: told of a request that ended two workers: its fingerprint, and until when it
                is refused.
        """
        self._link = link
        self._quarantine = quarantine
        self._wait_s = wait_s
        self._clock = clock
        self._later = later
        self._found = found
        # By the job.
        self._held: dict[int, HeldRequest] = {}
        self._reason = ""
        # When the last worker died.
        self._died = 0.0
        self._watched = False
        self._lock = threading.Lock()

    @property
    def inputs(self) -> InputMemory:
        """The memory of the link for inputs."""
        return self._link.inputs

    @property
    def holds(self) -> bool:
        """True if requests may wait for the next worker."""
        return self._wait_s > 0

    @property
    def held(self) -> int:
        """Requests that wait for the next worker."""
        return len(self._held)

    def waiting_rows(self, line: Line) -> int:
        """Return how many rows of all fronts wait for a model, where they are fewest."""
        return 0 if line.closed else self._link.waiting_rows(line)

    def submit(self, job: Job, line: Line) -> bool:
        """Send a request to a worker; False if its model is closed, True if it is answered."""
        if self._quarantine.active and self._refused(job, line):
            return True
        return self._link.submit(job, line) or self._hold(job, line)

    def withdraw(self, job: Job) -> bool:
        """Let go of a request that nobody waits for; True if the caller has to answer it."""
        with self._lock:
            held = self._held.pop(id(job), None)
        if held is None:
            self._link.cancel(job)
            return False
        held.lost.target.left(job)
        return True

    def lose(self, reason: str, worker: int = 0) -> Mapping[tuple[str, int], int]:
        """Take back what a dead worker had: it is answered, or waits until it can be sent again.

        Returns:
            The rows that ran when it died, by name and version of their model.
        """
        lost = self._link.take_back(worker)
        now = self._clock()
        fates = [
            fate(one, now, self._wait_s, elsewhere=bool(cast("Line", one.target).targets))
            for one in lost
        ]
        with self._lock:
            self._died, self._reason = now, reason
            for one, what in zip(lost, fates, strict=True):
                if what is Fate.RETRY:
                    self._held[id(one.job)] = HeldRequest(one, now + self._wait_s)
        for one, what in zip(lost, fates, strict=True):
            one.job.lost(now, reason, one.ran)
            if what is not Fate.RETRY:
                end(one, self._error(one, what, reason))
        suspects = sum(one.history.suspect for one in lost)
        held = fates.count(Fate.RETRY)
        log.warning(
            "taken back", extra={"requests": len(lost), "began": suspects, "sent_again": held}
        )
        self._watch()
        return rows_that_ran(lost)

    def settle(self, successor: Successor) -> None:
        """Send what waits to models that serve again, those that ran when a worker died last."""
        with self._lock:
            found = [(held.lost, successor(held.lost.target)) for held in self._held.values()]
            ready = [(one, line) for one, line in found if line is not None]
            for one, _ in ready:
                del self._held[id(one.job)]
        for one, line in sorted(ready, key=lambda pair: pair[0].history.suspect):
            if isinstance(line, InferdError):
                end(one, line)
            elif self._refused(one.job, line):
                one.target.left(one.job)
            elif not self._link.submit(one.job, line, one.history):
                # Replaced just now: it is admitted anew.
                end(one, HandleRetired("the model was replaced before the request ran"))

    def _hold(self, job: Job, line: Line) -> bool:
        """Let a new request wait for the next worker; False if none is to serve its model."""
        if not line.returning:
            return False
        one = Lost(job, line, NEW)
        # As if it had been there when the worker died: that is when the next one began to start.
        what = fate(one, self._died, self._wait_s)
        full = len(self._held) >= self._link.size
        with self._lock:
            if not line.returning:
                return False
            if what is Fate.RETRY and not full:
                self._held[id(job)] = HeldRequest(one, self._clock() + self._wait_s)
        if full:
            job.fail(QueueFull(f"{self._link.size} requests wait (max_requests): no room"))
        elif what is not Fate.RETRY:
            job.fail(self._error(one, what, self._reason))
        self._watch()
        return True

    def _refused(self, job: Job, line: LinkTarget) -> bool:
        """Answer a request that is in quarantine; True if it is."""
        refusal = self._quarantine.refusal(line.name, line.version, job.slot.inputs)
        if refusal is not None:
            job.fail(refusal)
        return refusal is not None

    def _watch(self) -> None:
        """See to it that what waits is answered when it has waited for as long as it may."""
        with self._lock:
            if self._watched or not self._held:
                return
            self._watched = True
            seconds = min(held.until for held in self._held.values()) - self._clock()
        self._later(max(0.0, seconds), self._expire)

    def _expire(self) -> None:
        now = self._clock()
        with self._lock:
            self._watched = False
            late = [held.lost for held in self._held.values() if held.until <= now]
            for one in late:
                del self._held[id(one.job)]
        self._watch()
        for one in late:
            why = f"no other one served its model within {self._wait_s:g} s"
            end(one, worker_lost(self._reason, one, why))

    def _error(self, lost: Lost, what: Fate, reason: str) -> InferdError:
        """Return what a request is answered that is not sent again."""
        if what is Fate.CANCELLED:
            return Cancelled("the caller went away while the request waited")
        if what is Fate.EXPIRED:
            return DeadlinePassed("the deadline passed, and the worker process was lost")
        if what is Fate.POISON:
            return self._refusal(lost)
        if what is Fate.STATELESS:
            return SequenceNotFound(f"{reason}, and the sequence with it; {ANEW}")
        return worker_lost(reason, lost, "no time is left to try again")

    def _refusal(self, lost: Lost) -> InferdError:
        """Put a request into quarantine; return what it is answered."""
        line = lost.target
        try:
            mark = fingerprint(line.name, line.version, lost.job.slot.inputs)
        except Exception:
            # The others must be answered all the same.
            log.exception("a request could not be recognised")
            return EngineFailure()
        until = self._quarantine.add(mark)
        self._found(mark, until)
        log.error("quarantined", extra={"model": line.name, "version": line.version})
        return quarantined(line.name, until - self._clock())


def end(lost: Lost, error: InferdError) -> None:
    """Answer a request that no worker is going to answer."""
    lost.job.fail(error)
    # Others of its stream may be sent now, where another worker serves the model on.
    lost.target.left(lost.job)


def rows_that_ran(lost: Iterable[Lost]) -> Mapping[tuple[str, int], int]:
    """Return the rows that ran when their worker died, by name and version of their model."""
    found: Counter[tuple[str, int]] = Counter()
    for one in lost:
        if one.ran:
            found[one.target.name, one.target.version] += one.job.rows
    return found
