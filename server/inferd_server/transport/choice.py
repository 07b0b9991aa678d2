"""Which transport serves: the completion queue where it is proven to work, else asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

AIO, COMPLETION_QUEUE = "aio", "completion_queue"


@dataclass(frozen=True, slots=True)
class Choice:
    """A transport's name, and why it is not the one that was wanted; empty where it is."""

    name: str
    reason: str = ""


def choose(
    asked: str,
    version: str,
    tested: Sequence[str],
    missing: Sequence[str],
    selftest: Callable[[], str],
) -> Choice:
    """Decide.

    Args:
        asked: "auto", "aio" or "completion_queue".
        version: of grpcio, installed.
        tested: versions of grpcio that the completion queue was tested with.
        missing: what the Cython layer lacks.
        selftest: returns what went wrong in calls over the completion queue; "" for nothing.
    """
    if asked == AIO:
        return Choice(AIO)
    if missing:
        return Choice(AIO, f"grpcio {version} lacks {', '.join(missing)}")
    if version not in tested and asked == "auto":
        return Choice(AIO, f"grpcio {version} is not among those tested: {', '.join(tested)}")
    problem = selftest()
    if problem:
        return Choice(AIO, f"the self-test with grpcio {version} failed: {problem}")
    return Choice(COMPLETION_QUEUE)
