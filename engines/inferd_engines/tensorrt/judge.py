"""Tries a plan once, before it serves: right beside its model, and how fast."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Engine, EngineError
from inferd_engines.tensorrt import gate
from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.key import PlanKey
from inferd_engines.tensorrt.latency import Latency, entry_of, measure
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_engines.tensorrt.store import PlanStore
from inferd_engines.tensorrt.trial import drawn, golden

log = logging.getLogger(__name__)
SEED = 0


class Judge:
    """Compares plans with their models, and notes in the store what came out."""

    def __init__(self, store: PlanStore, clock: Callable[[], float]) -> None:
        """Prepare.

        Args:
            store: of the plans.
            clock: monotonic seconds.
        """
        self._store = store
        self._clock = clock

    def report(
        self, plan: Engine, reference: Engine, key: PlanKey, model: Path, options: BuildOptions
    ) -> Mapping[str, Any]:
        """Return how a plan was accepted, now or earlier.

        Args:
            plan: opened.
            reference: the engine that it is compared with.
            key: of the plan.
            model: its file, golden inputs beside it.
            options: that the plan was built with.

        Raises:
            PlanRefused: it gives other answers.
            EngineError: one of the two cannot run, or the golden inputs cannot be read.
        """
        known = self._store.accepted(key)
        if known is not None:
            return known
        profiles = profiles_for(
            reference.signature, options.buckets, options.ranges, batched=options.batched
        )
        batches = drawn(reference.signature, profiles, np.random.default_rng(SEED))
        found = gate.accept(plan, reference, golden(model) or batches, options.precision)
        if found.problems:
            keep(self._store.refuse, key, found.as_json(), model)
            raise PlanRefused("the plan gives other answers: " + "; ".join(found.problems))
        report = {**found.as_json(), **entry_of(self._latencies(plan, batches))}
        keep(self._store.accept, key, report, model)
        log.info("a plan was accepted", extra={"model": str(model)})
        return report

    def _latencies(self, plan: Engine, batches: list[dict[str, Array]]) -> list[Latency]:
        """Time a plan that is right; nothing where drawn inputs are none for its model."""
        try:
            return measure(plan, batches, self._clock)
        except EngineError as error:
            if error.fatal:
                raise
            log.info("a plan was not timed", extra={"why": str(error)})
            return []


def keep(
    note: Callable[[PlanKey, Mapping[str, Any]], None],
    key: PlanKey,
    report: Mapping[str, Any],
    model: Path,
) -> None:
    """Remember what a comparison found; a store that is full or read-only is no obstacle."""
    try:
        note(key, report)
    except OSError as error:
        where = {"model": str(model), "why": str(error)}
        log.warning("a comparison could not be kept and will be made again", extra=where)
