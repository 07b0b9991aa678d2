"""The trial that lets a plan serve: whether it answers as its model does, and how fast."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Engine, EngineError
from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.key import PlanKey
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_engines.tensorrt.store import PlanStore
from inferd_engines.tensorrt.trial import drawn, golden

log = logging.getLogger(__name__)
SEED = 0
WARM_UP, RUNS = 2, 9
"""Runs that are not timed, and runs that are."""
LATENCY = "latency"
"""The entry of a report."""
RELATIVE: Mapping[str, float] = {
    "fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 5e-2, "int8": 2e-1, "fp8": 2e-1,
}  # fmt: skip
"""Of the largest value of the output, by precision."""
AGREEMENT: Mapping[str, float] = {
    "fp32": 0.99, "tf32": 0.98, "fp16": 0.98, "bf16": 0.95, "int8": 0.9, "fp8": 0.9,
}  # fmt: skip
"""Rows whose largest element is the same one, as a part of those that have a clear one."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One output of a plan beside the reference."""

    output: str
    error: float
    """Largest difference, as a part of the reference's largest value."""
    allowed: float
    agreement: float | None
    """Rows with the same largest element, as a part of those where it stands out; None if none."""
    new_nans: int
    """Elements that are NaN or infinite where the reference is not."""

    @property
    def problem(self) -> str:
        """What is wrong; "" if nothing is."""
        if self.new_nans:
            return f"output {self.output!r} has {self.new_nans} elements that are no numbers"
        if self.error > self.allowed:
            return f"output {self.output!r} is off by {self.error:.2g}, {self.allowed:.2g} may be"
        return ""


@dataclass(frozen=True, slots=True)
class Report:
    """What the gate found."""

    outputs: tuple[Compared, ...]
    wanted_agreement: float

    @property
    def problems(self) -> list[str]:
        """Why the plan must not serve; empty if it may."""
        found = [output.problem for output in self.outputs if output.problem]
        found += [
            f"output {output.output!r} ranks {output.agreement:.0%} of the rows alike, "
            f"{self.wanted_agreement:.0%} are wanted"
            for output in self.outputs
            if output.agreement is not None and output.agreement < self.wanted_agreement
        ]
        return found

    def as_json(self) -> dict[str, Any]:
        """Return what the manifest keeps."""
        return asdict(self)


def compare(
    expected: Sequence[Mapping[str, Array]], found: Sequence[Mapping[str, Array]], precision: str
) -> Report:
    """Compare the outputs of several runs.

    Args:
        expected: of the reference.
        found: of the plan, for the same inputs.
        precision: of the plan; decides what is near enough.
    """
    names = list(expected[0])
    compared = tuple(
        compare_output(
            name,
            [run[name] for run in expected],
            [run[name] for run in found],
            RELATIVE[precision],
        )
        for name in names
    )
    return Report(compared, AGREEMENT[precision])


def compare_output(
    name: str, expected: Sequence[Array], found: Sequence[Array], allowed: float
) -> Compared:
    """Compare one output of several runs."""
    if any(a.shape != b.shape for a, b in zip(expected, found, strict=True)):
        return Compared(name, float("inf"), allowed, None, 0)
    one = np.concatenate([run.reshape(-1) for run in expected]).astype(np.float64)
    other = np.concatenate([run.reshape(-1) for run in found]).astype(np.float64)
    finite = np.isfinite(one)
    new_nans = int((finite & ~np.isfinite(other)).sum())
    both = finite & np.isfinite(other)
    largest = float(np.abs(one[both]).max(initial=0.0))
    difference = float(np.abs(one[both] - other[both]).max(initial=0.0))
    error = difference / largest if largest else difference
    agreement = ranking(expected, found, allowed * largest)
    return Compared(name, error, allowed, agreement, new_nans)


def ranking(expected: Sequence[Array], found: Sequence[Array], off: float) -> float | None:
    """Return the part of rows with the same largest element; None without several to rank.

    A row counts only where that element is larger than the next one by more than one may be off.

    Args:
        expected: outputs of several runs.
        found: those that are compared.
        off: how far an element may be off.
    """
    if not all(run.ndim >= 2 and run.shape[-1] > 1 and run.dtype.kind == "f" for run in expected):
        return None
    alike, clear = [], []
    for one, other in zip(expected, found, strict=True):
        a, b = (run.reshape(-1, run.shape[-1]).astype(np.float64) for run in (one, other))
        second, first = np.partition(a, -2, axis=1)[:, -2:].T
        clear.append(first - second > off)
        alike.append(a.argmax(1) == b.argmax(1))
    counted = np.concatenate(clear)
    return float(np.concatenate(alike)[counted].mean()) if counted.any() else None


def accept(
    plan: Engine, reference: Engine, inputs: Sequence[Mapping[str, Array]], precision: str
) -> Report:
    """Run both on the same inputs and compare.

    Raises:
        EngineError: one of them cannot run.
    """
    runs = [(one, rows_of(plan, one)) for one in inputs]
    expected = [reference.run(one, {}, rows) for one, rows in runs]
    found = [plan.run(one, {}, rows) for one, rows in runs]
    return compare(expected, found, precision)


@dataclass(frozen=True, slots=True)
class Latency:
    """Of runs with as many rows, alone on the device."""

    rows: int
    """1 for a plan without a batch dimension."""
    best: float
    """Seconds."""
    median: float
    """Seconds."""


def measure(
    engine: Engine, batches: Sequence[Mapping[str, Array]], clock: Callable[[], float]
) -> list[Latency]:
    """Time runs of each batch.

    Args:
        engine: that runs them.
        batches: inputs, one for each bucket.
        clock: monotonic seconds.

    Raises:
        EngineError: a run failed.
    """
    return [timed(engine, batch, clock) for batch in batches]


def timed(engine: Engine, batch: Mapping[str, Array], clock: Callable[[], float]) -> Latency:
    """Time runs of one batch.

    Raises:
        EngineError: a run failed.
    """
    rows = rows_of(engine, batch)
    for _ in range(WARM_UP):
        engine.run(batch, {}, rows)
    seconds = []
    for _ in range(RUNS):
        start = clock()
        engine.run(batch, {}, rows)
        seconds.append(clock() - start)
    return Latency(rows, min(seconds), median(seconds))


def rows_of(engine: Engine, batch: Mapping[str, Array]) -> int:
    """Return the rows of a batch; 1 for a plan without a batch dimension."""
    return len(next(iter(batch.values()))) if engine.buckets else 1


def entry_of(latencies: Sequence[Latency]) -> dict[str, Any]:
    """Return latencies as a report keeps them."""
    return {LATENCY: [asdict(latency) for latency in latencies]}


def latencies_in(report: Mapping[str, Any]) -> tuple[Latency, ...]:
    """Return the latencies of a report; none where it has none, as those of older versions."""
    try:
        return tuple(Latency(**found) for found in report.get(LATENCY, ()))
    except TypeError:
        return ()


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
        found = accept(plan, reference, golden(model) or batches, options.precision)
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
