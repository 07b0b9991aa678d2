"""What becomes of a request whose worker died before it was answered: a pure function."""

from __future__ import annotations

from enum import Enum

from inferd_server.errors import WorkerLost
from inferd_server.link.sending import Lost
from inferd_server.scheduler.decision import expired

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
    LOST = "lost"


def fate(lost: Lost, now: float, wait_s: float) -> Fate:
    """Decide what becomes of a request whose worker died.

    It may begin to run twice. The second time it runs alone, so that a worker that dies then died
    of it.

    Args:
        lost: the request, and how often it was sent and began to run.
        now: monotonic seconds.
        wait_s: seconds that it may wait for another worker; 0: not at all.
    """
    job, history = lost.job, lost.history
    if history.begun >= RUNS:
        return Fate.POISON
    if job.cancelled:
        return Fate.CANCELLED
    if expired(job, now):
        return Fate.EXPIRED
    late = job.deadline is not None and job.deadline < now + START_S
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
