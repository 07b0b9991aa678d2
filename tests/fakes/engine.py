"""A double for engines: computes with numpy, can be held, fails on demand, remembers batches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from inferd_engines.engine import Array, EngineError, PlanState, Signature, Tensor

Compute: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]

HELD_AT_MOST = 30.0
"""Seconds after which a held run fails: a test that forgets to release must not hang."""

DOUBLING = Signature(
    inputs=(Tensor("INPUT0", np.dtype(np.float32), (None, 4), ("batch", "")),),
    outputs=(Tensor("OUTPUT0", np.dtype(np.float32), (None, 4), ("batch", "")),),
)


def double(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return OUTPUT0 = 2 * INPUT0."""
    return {"OUTPUT0": inputs["INPUT0"] * 2}


@dataclass(frozen=True, slots=True)
class Batch:
    """One run as the engine saw it; the inputs are copies."""

    rows: int
    inputs: Mapping[str, Array]


class FakeEngine:
    """An engine without a runtime. Attributes tell tests what happened to it."""

    def __init__(
        self,
        signature: Signature = DOUBLING,
        compute: Compute = double,
        *,
        name: str = "fake/numpy",
        reason: str = "",
        plan_state: PlanState = PlanState.NONE,
        buckets: tuple[int, ...] = (),
    ) -> None:
        self.signature = signature
        self.name = name
        self.version = "0"
        self.reason = reason
        self.plan_state = plan_state
        self.buckets: Sequence[int] = buckets
        self.overridable: Sequence[Tensor] = ()
        # Its runs can be held, so nobody may count on their time.
        self.steady = False
        self.batches: list[Batch] = []
        self.warmed: list[int] = []
        self.closed = False
        self.running = threading.Event()
        """Set when a run has begun; a test waits for it before it acts on a held run."""
        self._compute = compute
        self._gate = threading.Event()
        self._gate.set()
        self._failures: list[Exception] = []

    def hold(self) -> None:
        """Make runs wait inside the engine until `release`."""
        self.running.clear()
        self._gate.clear()

    def release(self) -> None:
        """Let held runs go on, and later ones through."""
        self._gate.set()

    def fail(self, error: Exception, times: int = 1) -> None:
        """Raise this error from the next runs."""
        self._failures += [error] * times

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Compute, as the engine interface says."""
        if self.closed:
            raise EngineError("the engine is closed")
        for tensor in self.signature.inputs:
            check(tensor, inputs)
        self.batches.append(Batch(rows, {name: array.copy() for name, array in inputs.items()}))
        self.running.set()
        if not self._gate.wait(HELD_AT_MOST):
            raise EngineError("the test never released the engine")
        if self._failures:
            raise self._failures.pop(0)
        results = self._compute(inputs)
        return {t.name: deliver(t.name, results[t.name], outputs) for t in self.signature.outputs}

    def warm(self, rows: int) -> None:
        """Remember the batch size."""
        self.warmed.append(rows)

    def memory(self) -> int:
        """Return 0."""
        return 0

    def close(self) -> None:
        """Refuse runs from now on."""
        self.closed = True


def quick_engine() -> FakeEngine:
    """Return an engine of which the server believes that its runs always take no time."""
    engine = FakeEngine(name="fake/CPUExecutionProvider")
    engine.steady = True
    return engine


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """A run that a fake engine began."""

    inputs: Mapping[str, Array]
    rows: int


class OverlappingEngine(FakeEngine):
    """Runs in two halves. It reads the inputs only in the second, as a GPU may."""

    LANES = 2

    def __init__(
        self, signature: Signature = DOUBLING, compute: Compute = double, **options: Any
    ) -> None:
        super().__init__(signature, compute, **options)
        self.steps: list[str] = []
        """What was begun and finished, with the number of rows."""
        self.refusals: list[Exception] = []
        """Raised by the next runs that begin."""
        self._under_way: list[Begun] = []

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Begun:
        """Remember a run."""
        assert not self.buckets or rows <= max(self.buckets)
        if self.refusals:
            raise self.refusals.pop(0)
        self.steps.append(f"begin {rows}")
        self._take(Begun(inputs, rows))
        return self._under_way[-1]

    def finish(self, begun: Begun, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Compute."""
        self.steps.append(f"finish {begun.rows}")
        self._under_way.remove(begun)
        return super().run(begun.inputs, outputs, begun.rows)

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Compute at once, on a lane of its own."""
        self._take(Begun(inputs, rows))
        try:
            return super().run(inputs, outputs, rows)
        finally:
            self._under_way.pop()

    def _take(self, begun: Begun) -> None:
        if len(self._under_way) == self.LANES:
            raise EngineError("every lane has a run")
        self._under_way.append(begun)


def check(tensor: Tensor, inputs: Mapping[str, Array]) -> None:
    """Refuse an input that is missing, or of another dtype or shape than the signature's."""
    array = inputs.get(tensor.name)
    if array is None:
        raise EngineError(f"input {tensor.name!r} is missing")
    if array.dtype != tensor.dtype:
        raise EngineError(f"input {tensor.name!r} is {array.dtype} and must be {tensor.dtype}")
    fits = len(array.shape) == len(tensor.shape) and all(
        wanted in (None, size) for wanted, size in zip(tensor.shape, array.shape, strict=True)
    )
    if not fits:
        raise EngineError(f"input {tensor.name!r} is {array.shape} and must be {tensor.shape}")


def deliver(name: str, result: Array, outputs: Mapping[str, Array]) -> Array:
    """Return the result, in the buffer given for it where there is one."""
    buffer = outputs.get(name)
    if buffer is None:
        return result
    if (buffer.shape, buffer.dtype) != (result.shape, result.dtype):
        raise EngineError(f"output {name!r} does not fit its buffer")
    np.copyto(buffer, result)
    return buffer
