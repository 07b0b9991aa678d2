"""How many processes there are, and when one that died starts again: pure functions."""

from __future__ import annotations

from collections.abc import Sequence

FIRST_S, LONGEST_S = 0.1, 5.0
"""Seconds before the second attempt in a row, and before any."""
LIMIT = 8
"""Starts in a row that may fail before the server gives up."""
MANY_FRONTS = 12


def split_wanted(asked: str, cores: int, providers: Sequence[str]) -> bool:
    """Decide whether fronts and worker are processes of their own.

    On one or two cores without a GPU they would only take time from each other.

    Args:
        asked: "auto", "split", or an arrangement of one process.
        cores: that this server may use.
        providers: devices that the operator named.
    """
    if asked != "auto":
        return asked == "split"
    return cores > 2 or has_gpu(providers)


def front_count(asked: int, cores: int, providers: Sequence[str]) -> int:
    """Return how many fronts to start; 0 asks for a choice.

    A front fills about one core. Beside a GPU the cores are theirs; on the CPU most of them
    are the engines'.
    """
    if asked:
        return asked
    if has_gpu(providers):
        return max(1, min(MANY_FRONTS, cores - 2))
    return max(1, min(MANY_FRONTS, cores // 4))


def has_gpu(providers: Sequence[str]) -> bool:
    """Tell whether a device other than the processor was asked for."""
    return any(not provider.startswith("CPU") for provider in providers)


def restart_delay(failures: int) -> float | None:
    """Return the seconds to wait before the next start; None to give up.

    Args:
        failures: starts in a row that ended before the process was of any use.
    """
    if failures > LIMIT:
        return None
    return 0.0 if failures < 2 else min(LONGEST_S, FIRST_S * 2.0 ** (failures - 2))
