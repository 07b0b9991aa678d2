"""The deaths of worker processes, and what they tell of their models."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from inferd_server.memory import out_of_memory_kills

LOADS = 2
"""Worker processes that a model may end while it is loaded, before it is left out."""
ENDS = frozenset({
    signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE,
})  # fmt: skip
"""Signals by which native code ends a process."""
Version = tuple[str, int]
"""Name and version of a model."""


class WorkerDeaths:
    """Models that are left out, and batches that are not formed again. Used under one lock.

    A model is left out that was being loaded when a process died, twice without having served in
    between. A model whose batch was running when memory ran out gets smaller ones.
    """

    def __init__(self, kills: Callable[[], int | None] = out_of_memory_kills) -> None:
        """Begin without a death.

        Args:
            kills: returns how many processes the kernel ended for want of memory; None: unknown.
        """
        self._kills = kills
        self._killed = kills()
        self._loads: Counter[str] = Counter()
        self._limits: dict[Version, int] = {}
        # Before the last death, whose running rows are told front by front.
        self._limits_before: dict[Version, int] = {}
        self._ran: Counter[Version] = Counter()
        self._memory_ran_out = False

    @property
    def left_out(self) -> frozenset[str]:
        """Models that the next worker does not load by itself."""
        return frozenset(name for name, times in self._loads.items() if times >= LOADS)

    @property
    def batch_limits(self) -> Mapping[Version, int]:
        """Rows that a batch may have, of model versions that had too many."""
        return dict(self._limits)

    def died(self, code: int | None, loading: Collection[str]) -> frozenset[str]:
        """Take a death in; return the models that are left out from now on because of it.

        Args:
            code: exit code of the process, of a signal the number with a minus; None: the server
                ended it.
            loading: models that were being loaded.
        """
        before = self.left_out
        self._memory_ran_out = code == -signal.SIGKILL and self._by_the_kernel()
        self._limits_before, self._ran = dict(self._limits), Counter()
        if self._memory_ran_out or (code is not None and -code in ENDS):
            self._loads.update(set(loading))
        return self.left_out - before

    def ran(self, rows: Mapping[Version, int]) -> Mapping[Version, int]:
        """Take in the rows of one front that ran when the worker died; return what they may be.

        Half of what ran, of all fronts together, for models that ran more than one.
        """
        if not self._memory_ran_out:
            return {}
        self._ran.update(rows)
        found = {version: self._smaller(version) for version in rows if self._ran[version] > 1}
        self._limits.update(found)
        return found

    def served(self, names: Collection[str]) -> None:
        """Note models that serve: what happened while they were loaded is forgiven."""
        for name in names:
            self._loads.pop(name, None)

    def _smaller(self, version: Version) -> int:
        ran = self._ran[version]
        return max(1, min(self._limits_before.get(version, ran), ran) // 2)

    def _by_the_kernel(self) -> bool:
        """True unless it is known that the kernel ended nobody for want of memory."""
        before, self._killed = self._killed, self._kills()
        return before is None or self._killed is None or self._killed > before
