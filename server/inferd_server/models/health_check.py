"""Trial inferences by the way of real requests, where there were none lately.

One row of zeros; of a model that does not take those, the last request that a caller sent.
Together they cost a small part of a core, however many models there are: each trial is paid from
what a round may spend, and whoever does not fit into one round has its turn in a later one.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array
from inferd_engines.engine import RowSpec, Tensor

from inferd_server.batching.job import Job
from inferd_server.batching.slots import NoRoom, Slot
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    InferdError,
    InvalidInput,
    ResourceExhausted,
    Unavailable,
)
from inferd_server.models.entries import Models, State
from inferd_server.models.last_request import LastRequest, OneRow
from inferd_server.models.version import Handle
from inferd_server.monitoring.phases import Phases


class TrialOutcome(Enum):
    """How a trial ended."""

    OK = "ok"
    SERVED = "served"
    """Callers were answered meanwhile, which says as much."""
    FAILED = "failed"
    LATE = "late"
    """No answer in time, and none to anybody else."""
    BUSY = "busy"
    """It could not be tried, which says nothing of the model."""
    UNFIT = "unfit"
    """The model does not take zeros, and is not tried."""


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """What is known of a model version after a round of trials."""

    model: str
    version: int
    outcome: TrialOutcome
    why: str = ""


def judge(error: InferdError | None, proven: bool) -> TrialOutcome:
    """Tell what the answer to a trial means.

    Args:
        error: that it was answered with; None: with outputs.
        proven: the model has run on zeros before.
    """
    if error is None:
        return TrialOutcome.OK
    if isinstance(error, DeadlinePassed):
        return TrialOutcome.LATE
    if isinstance(error, ResourceExhausted | Unavailable | Cancelled):
        # Bounds, and what is known without a trial.
        return TrialOutcome.BUSY
    refused = isinstance(error, InvalidInput) and error.reason != "QUARANTINED"
    return TrialOutcome.FAILED if proven and not refused else TrialOutcome.UNFIT


WELL = {TrialOutcome.OK, TrialOutcome.SERVED, TrialOutcome.UNFIT}


class FailingModels:
    """Verdicts on model versions. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` is monotonic seconds."""
        self._clock = clock
        self._why: dict[tuple[str, int], str] = {}
        self._late: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def judged(self, verdict: TrialVerdict) -> bool:
        """Note the latest verdict on a version; True if that changes what is known."""
        if verdict.outcome is TrialOutcome.BUSY:
            return False
        version = verdict.model, verdict.version
        with self._lock:
            before = self._why.get(version)
            known = before is not None
            if verdict.outcome in WELL:
                self._why.pop(version, None)
            else:
                self._why[version] = verdict.why
            if verdict.outcome is TrialOutcome.LATE:
                self._late.setdefault(version, self._clock())
            else:
                self._late.pop(version, None)
        if verdict.outcome not in WELL and not known:
            where = {"model": verdict.model, "version": verdict.version}
            log.error("a trial failed", extra={**where, "why": verdict.why})
        with self._lock:
            return self._why.get(version) != before

    def keep(self, loaded: Collection[tuple[str, int]]) -> None:
        """Forget what was said of versions that are not loaded any more."""
        with self._lock:
            for said in (self._why, self._late):
                for version in said.keys() - loaded:
                    del said[version]

    def why(self) -> Mapping[tuple[str, int], str]:
        """Return the versions that fail their trials, and why."""
        with self._lock:
            return dict(self._why)

    def late(self) -> Mapping[str, float]:
        """Return the models that answer nobody, and for how many seconds."""
        now = self._clock()
        with self._lock:
            return {model: now - since for (model, _), since in self._late.items()}


log = logging.getLogger(__name__)
TEXT = DATATYPES[BYTES]
Clock = Callable[[], float]
SHARE = 0.01
"""Of a core, for all trials."""
LEAST_S = 0.001
"""What a trial costs beside the run: the way there and back."""
BESIDE_S = 0.1
"""Seconds after which the next model is tried beside one that has not answered."""
CPU = "CPU"
"""Stands in the names of engines that run on the processor."""


class Trial(Job):
    """One trial inference."""

    def __init__(self) -> None:
        super().__init__()
        self.error: InferdError | None = None
        self.seconds = 0.0
        """That the run took."""
        self.over = threading.Event()

    def _succeed(self, outputs: Mapping[str, Array], phases: Phases) -> None:
        """Note that the model answered; with what is not looked at."""
        del outputs
        self.seconds = phases.run.gather + phases.run.compute
        self.over.set()

    def _refuse(self, error: InferdError) -> None:
        """Note why it did not."""
        self.error = error
        self.over.set()


class HealthCheck:
    """The trials of one loaded model version."""

    def __init__(self, handle: Handle, clock: Clock) -> None:
        self._handle = handle
        self._clock = clock
        self._zeros = row_of_zeros(handle)
        # Who was warmed with zeros takes them.
        self._proven = handle.takes_zeros
        self._successes = handle.statistics.successes
        self._open: Trial | None = None
        self.round = 0
        """In which it was tried last."""
        self.suspect = False
        """True while its last trial was not answered well."""
        self.cost = LEAST_S
        """Seconds of a core that a trial takes, as far as the last one tells."""

    @property
    def wanted(self) -> bool:
        """True if there is something to be found out by a trial."""
        last = self._handle.last_request
        able = last is None or last.known
        return self._open is None and able and not self._served()

    def begin(self, seconds: float) -> None:
        """Send a trial that has so many seconds, and give it a moment for its answer."""
        trial = self._open = self._submit(self._clock() + seconds)
        if trial is not None:
            trial.over.wait(min(seconds, BESIDE_S))

    def end(self, until: float) -> TrialVerdict | None:
        """Wait until some time for the answer, and return what it says; None: nothing new."""
        if self._open is None:
            return self._verdict(TrialOutcome.SERVED) if self._served(forget=True) else None
        trial = self._open
        if not trial.over.wait(max(0.0, until - self._clock())):
            return self._late(trial)
        self._open = None
        if CPU in self._handle.engine:
            self.cost = LEAST_S + trial.seconds
        outcome = judge(trial.error, self._proven)
        self._proven = self._proven or outcome is TrialOutcome.OK
        if outcome is TrialOutcome.UNFIT:
            self._watch_callers()
        return self._verdict(outcome, str(trial.error or ""))

    def _watch_callers(self) -> None:
        """Try the last request from now on, whatever it is; nothing until there was one."""
        self._proven = False
        if self._handle.last_request is None:
            self._handle.last_request = LastRequest()
        else:
            # It is no input that the model takes.
            self._handle.last_request.forget()

    def _late(self, trial: Trial) -> TrialVerdict:
        # Nobody needs the answer. What runs stays open until it comes: one trial at a time.
        trial.cancelled = True
        if self._handle.queue.withdraw(trial):
            trial.fail(Cancelled("the trial took too long"))
            self._open = None
        if self._served(forget=True):
            return self._verdict(TrialOutcome.SERVED)
        return self._verdict(TrialOutcome.LATE, "a trial inference was not answered in time")

    def _served(self, forget: bool = False) -> bool:
        """True if the model answered callers since it was last looked at."""
        now = self._handle.statistics.successes
        before = self._successes
        if forget:
            self._successes = now
        return now > before

    def _submit(self, deadline: float) -> Trial | None:
        handle = self._handle
        last = handle.last_request
        row = self._zeros if last is None else last.take()
        slot = None if row is None else reserve(handle, row)
        if row is None or slot is None:
            # Nothing to send yet, or others fill the queue, and tell by their answers.
            return None
        trial = Trial()
        trial.place(slot, row.specs, self._clock(), deadline, trial=True)
        if not handle.queue.submit(trial):
            slot.free()
            return None
        return trial

    def _verdict(self, outcome: TrialOutcome, why: str = "") -> TrialVerdict:
        self.suspect = outcome in {TrialOutcome.FAILED, TrialOutcome.LATE}
        return TrialVerdict(self._handle.name, self._handle.version, outcome, why)


class HealthChecks:
    """Trials of every model that serves. Rounds are run by one thread."""

    def __init__(
        self,
        models: Models,
        clock: Clock,
        tell: Callable[[TrialVerdict], None],
        count: Callable[[str, int, str], None],
    ) -> None:
        """Begin with none.

        Args:
            models: to be tried.
            clock: monotonic seconds.
            tell: gets what a round found out of each model, where that says anything.
            count: gets model, version and outcome of each verdict.
        """
        self._models = models
        self._clock = clock
        self._tell = tell
        self._count = count
        self._checks: dict[int, tuple[Handle, HealthCheck]] = {}
        self._round = 0
        # Seconds of a core that may be spent; less than none after a trial that took long.
        self._credit = 0.0

    def round(self, seconds: float) -> None:
        """Try models that have answered nobody since the last round; blocks so long at most.

        Those that failed come first, then those whose last trial is the longest ago, as far as
        what a round of so many seconds may spend goes.

        What runs inline is not tried: the thread that would is the one that answers probes. Nor is
        a model with sequences: a trial would be a step of one.
        """
        handles = [
            entry.handle
            for entry in self._models.entries()
            if entry.state is State.READY and entry.handle is not None
        ]
        tried = [
            handle
            for handle in handles
            if handle.arrangement != "inline" and handle.config.sequence is None
        ]
        self._round += 1
        self._credit = min(self._credit, 0.0) + SHARE * seconds
        known = self._checks
        self._checks = {
            id(handle): known.get(id(handle)) or (handle, HealthCheck(handle, self._clock))
            for handle in tried
        }
        checks = [check for _, check in self._checks.values()]
        until = self._clock() + seconds
        try:
            for check in sorted(checks, key=lambda one: (not one.suspect, one.round)):
                left = until - self._clock()
                if self._credit <= 0 or left <= 0:
                    break
                if check.wanted:
                    check.round = self._round
                    self._credit -= check.cost
                    check.begin(left)
            self._conclude(checks, until)
        except Exception:
            # The next round must come all the same.
            log.exception("models could not be tried")

    def _conclude(self, checks: Sequence[HealthCheck], until: float) -> None:
        for check in checks:
            verdict = check.end(until)
            if verdict is not None:
                self._count(verdict.model, verdict.version, verdict.outcome.value)
                self._tell(verdict)


def reserve(handle: Handle, row: OneRow) -> Slot | None:
    """Return a slot that holds one row; None without room."""
    try:
        slot = handle.arena.reserve(row.specs, 1, row.nbytes)
    except NoRoom:
        return None
    for array, value in zip(slot.inputs, row.inputs, strict=True):
        array[...] = value
    return slot


def row_of_zeros(handle: Handle) -> OneRow:
    """Return the smallest request that a model may take."""
    specs = tuple(row_spec(tensor, handle.batched) for tensor in handle.signature.inputs)
    nbytes = sum(dtype.itemsize * math.prod(shape) for dtype, shape in specs)
    # Of one element each, if they are not the model's own: stretched when they are written.
    return OneRow(
        specs,
        [
            zero(tensor.dtype)
            if tensor.default is None
            else np.frombuffer(tensor.default, np.uint8).view(tensor.dtype).reshape(shape)
            for tensor, (_, shape) in zip(handle.signature.inputs, specs, strict=True)
        ],
        nbytes,
    )


def row_spec(tensor: Tensor, batched: bool) -> RowSpec:
    """Return dtype and shape of one row of an input, free dimensions taken as 1."""
    shape = tensor.shape[1:] if batched and not tensor.shared else tensor.shape
    return tensor.dtype, tuple(1 if size is None else size for size in shape)


def zero(dtype: np.dtype[Any]) -> Array:
    """Return zero, or the empty text, as an array without dimensions."""
    return np.full((), b"" if dtype == TEXT else 0, dtype)
