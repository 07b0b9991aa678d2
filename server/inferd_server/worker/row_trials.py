"""Trials of rows, each done once: what was found before is looked up."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError, Shrinking
from inferd_engines.onnx_values import ModelFacts

from inferd_server.memory import give_back, peak_bytes, resident_bytes
from inferd_server.worker.row_independence import Budget, RowTrial
from inferd_server.worker.row_verdict import Finding, Verdict
from inferd_server.worker.verdict_store import METHOD, VerdictStore

SPARE = 64 << 20
"""Bytes that a trial may leave behind."""
SPARE_WARM = 512 << 20
"""The same for a warm-up, whose runs make memory ready that callers' runs use again."""


class RowTrials:
    """Tries the rows of models, or finds what was found before. Any thread may call."""

    def __init__(
        self,
        clock: Callable[[], float],
        folder: Path | None = None,
        input_bytes: int = 128 << 20,
        resident: Callable[[], int] = resident_bytes,
        peak: Callable[[], int] = peak_bytes,
    ) -> None:
        """Keep where verdicts are kept, and what a trial may cost.

        Args:
            clock: monotonic seconds.
            folder: of the verdicts; None: none are kept.
            input_bytes: of one batch's inputs.
            resident: returns the bytes of memory that this process holds.
            peak: returns the most that it ever held.
        """
        self._store = VerdictStore(folder)
        self.budget = Budget(clock, resident, peak, input_bytes)

    def verdict(
        self,
        engine: Engine,
        facts: ModelFacts,
        most: int,
        own: Mapping[str, Array] | None,
        digest: Callable[[], str],
    ) -> Verdict:
        """Return what is known of a model's rows, after a trial if nothing is.

        Args:
            engine: opened; on its thread.
            facts: from the model's file.
            most: rows that a batch may have.
            own: rows that the model is known to take, by input; None: none are known.
            digest: returns that of the model's files; "" if it cannot be told.

        Raises:
            EngineError: a fatal one.
        """
        key = self._key(engine, most, own, digest()) if self._store.kept else ""
        known = self._store.find(key) if key else None
        if known is not None:
            return known
        before = self.budget.resident()
        trial = RowTrial(engine, facts, most, self.budget, own)
        found = trial.verdict()
        self.give_back(engine, lambda: trial.smallest() or {}, before, SPARE)
        # What was not tried for want of time would not be tried next time either.
        if key and (found.finding is not Finding.UNTRIED or trial.stopped):
            about = {"engine": engine.name, "version": engine.version, "digest": digest()}
            self._store.keep(key, found, about)
        return found

    def give_back(
        self,
        engine: Engine,
        inputs: Callable[[], Mapping[str, Array]],
        before: int,
        spare: int,
    ) -> None:
        """Let an engine keep no more memory than it needs, after large runs.

        Args:
            engine: whose runs they were; on its thread.
            inputs: returns those of the smallest run, as far as they are known.
            before: bytes that this process held before them.
            spare: bytes that may stay.

        Raises:
            EngineError: a fatal one.
        """
        if self.budget.resident() - before <= spare:
            return
        if isinstance(engine, Shrinking):
            shrink(engine, inputs())
        give_back()

    def _key(self, engine: Engine, most: int, own: Mapping[str, Array] | None, digest: str) -> str:
        """Return what a verdict depends on; "" if that is not known."""
        if not digest:
            return ""
        parts = (METHOD, digest, engine.name, engine.version, platform.machine(), most)
        key = hashlib.sha256(repr((*parts, self.budget.input_bytes)).encode())
        for name, array in sorted((own or {}).items()):
            key.update(repr((name, array.dtype.str, array.shape)).encode())
            key.update(repr(array.tolist()).encode() if array.dtype == object else array.tobytes())
        return key.hexdigest()


def shrink(engine: Shrinking, inputs: Mapping[str, Array]) -> None:
    """Let an engine keep no more memory than it needs, if it can.

    Raises:
        EngineError: a fatal one.
    """
    try:
        engine.shrink(inputs)
    except EngineError as error:
        if error.fatal:
            raise
