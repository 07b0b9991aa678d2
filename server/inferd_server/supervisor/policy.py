"""How many processes there are, and when one that died starts again: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inferd_server.settings.model import EngineSettings

FIRST_S, LONGEST_S = 0.1, 5.0
"""Seconds before the second attempt in a row, and before any."""
LIMIT = 8
"""Starts in a row that may fail before the server gives up."""
FAILURES_ON_GPU = 3
"""Of these, so many before the processor is tried."""
MANY_FRONTS = 12


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Front processes before a worker process; 0: one process does everything."""

    fronts: int
    reason: str

    @property
    def described(self) -> str:
        """In words."""
        if not self.fronts:
            return "one process"
        return f"{self.fronts} front process{'es' if self.fronts > 1 else ''} and a worker process"


def arrange(asked: str, fronts: int, cores: int, providers: Sequence[str]) -> Arrangement:
    """Decide whether fronts and worker are processes of their own, and how many fronts.

    On one or two cores without a GPU processes would only take time from each other. Which
    models run inline there is decided for each of them, when it was warmed up.

    Args:
        asked: "auto", "split", or an arrangement of one process.
        fronts: 0 asks for a choice.
        cores: that this server may use.
        providers: devices that the operator named.
    """
    count = front_count(fronts, cores, providers)
    if asked == "split":
        return Arrangement(count, "asked for")
    if asked != "auto":
        return Arrangement(0, "asked for")
    if has_gpu(providers):
        return Arrangement(count, "an engine on a device that can fail needs a process of its own")
    if cores > 2:
        return Arrangement(count, f"{cores} cores")
    return Arrangement(0, f"{cores} core{'s' if cores > 1 else ''}, and no GPU")


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


def without_gpu(allowed: bool, gpu: bool, failures: int) -> str:
    """Say why the next worker should leave the GPU alone; "" if it should not.

    Args:
        allowed: `cpu_fallback`.
        gpu: one was asked for.
        failures: workers in a row that ended before they served.
    """
    if not (allowed and gpu) or failures < FAILURES_ON_GPU:
        return ""
    return f"{failures} worker processes in a row ended before they served"


def wants_gpu(engine: EngineSettings) -> bool:
    """Tell whether a GPU was asked for: whoever names a store of plans means one."""
    return bool(engine.plan_store) or has_gpu(engine.engine_providers)


def has_gpu(providers: Sequence[str]) -> bool:
    """Tell whether a device other than the processor was asked for."""
    return any(not provider.upper().startswith("CPU") for provider in providers)


def restart_delay(failures: int) -> float | None:
    """Return the seconds to wait before the next start; None to give up.

    Args:
        failures: starts in a row that ended before the process was of any use.
    """
    if failures > LIMIT:
        return None
    return 0.0 if failures < 2 else min(LONGEST_S, FIRST_S * 2.0 ** (failures - 2))
