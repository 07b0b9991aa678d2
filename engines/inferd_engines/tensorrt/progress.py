"""How far a build is, and how it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Phase:
    """A phase of a build, as TensorRT tells of it."""

    name: str
    parent: str
    steps: int


class Build:
    """A build under way. `cancel` may be called from any thread."""

    def __init__(
        self,
        told: Callable[[Phase, int], None] = lambda _phase, _done: None,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Begin.

        Args:
            told: called on TensorRT's thread with a phase and the steps of it that are done.
            cancelled: cancels it, too, when it is set.
        """
        self._told = told
        self._phases: dict[str, Phase] = {}
        self._cancelled = cancelled or threading.Event()

    def cancel(self) -> None:
        """Let the build end soon, without a plan."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """True once somebody cancelled it."""
        return self._cancelled.is_set()

    def started(self, name: str, parent: str | None, steps: int) -> None:
        """Note that a phase begins."""
        phase = self._phases[name] = Phase(name, parent or "", steps)
        self._told(phase, 0)

    def step(self, name: str, index: int) -> bool:
        """Note a step that is done; return False to stop the build."""
        phase = self._phases.get(name)
        if phase is not None:
            self._told(phase, index + 1)
        return not self.cancelled

    def finished(self, name: str) -> None:
        """Note that a phase is over."""
        phase = self._phases.pop(name, None)
        if phase is not None:
            self._told(phase, phase.steps)


def monitor_of(trt: Any, build: Build) -> Any:
    """Return a progress monitor for TensorRT that tells a build."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            build.started(name, parent, steps)

        def step_complete(self, name: str, index: int) -> bool:
            return build.step(name, index)

        def phase_finish(self, name: str) -> None:
            build.finished(name)

    return Monitor()
