"""The trial that lets a plan serve: its answers beside ONNX Runtime's, before any caller's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from inferd_engines.engine import Array, Engine
from inferd_engines.tensorrt.latency import rows_of

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
