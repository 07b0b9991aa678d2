"""Which transport serves: the completion queue where it is proven to work, else asyncio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

AIO, COMPLETION_QUEUE = "aio", "completion_queue"

# Of many callers' small requests; measured in docs/benchmarks.md.
COST = "this transport serves about a quarter as many requests a second"


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
        tested: minor versions of grpcio ("1.85") that the completion queue was tested with.
        missing: what the Cython layer lacks.
        selftest: returns what went wrong in calls over the completion queue; "" for nothing.
    """
    if asked == AIO:
        return Choice(AIO)
    cure = f"{COST}; {install(tested)} serves faster"
    if missing:
        return Choice(AIO, f"grpcio {version} lacks {', '.join(missing)}: {cure}")
    if minor(version) not in tested and asked == "auto":
        return Choice(AIO, f"grpcio {version} is not among those tested: {cure}")
    problem = selftest()
    if problem:
        return Choice(AIO, f"the self-test with grpcio {version} failed: {problem}: {cure}")
    return Choice(COMPLETION_QUEUE)


def minor(version: str) -> str:
    """Return the first two numbers of a version; patches of one minor keep its inner layer."""
    return ".".join(version.split(".")[:2])


def install(tested: Sequence[str]) -> str:
    """Return the command that installs the newest patch of the newest minor that was tested."""
    newest = max(tested, key=lambda each: [int(number) for number in each.split(".")])
    return f"pip install 'grpcio=={newest}.*'"
