"""Running a batch, wherever its requests wait: in, through the engine, every request answered."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError, Overlapping

from inferd_server.errors import NOTHING, InferdError, InvalidInput
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.scheduler.job import Execution
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.store import SequenceRefused

log = logging.getLogger(__name__)
R = TypeVar("R", bound=Sized)
R_co = TypeVar("R_co", bound=Sized, covariant=True)
Clock = Callable[[], float]
Observer = Callable[[Execution], None]


class Decided(Protocol[R_co]):
    """What to run, and what to answer without running."""

    @property
    def run(self) -> R_co:
        """In order of arrival."""

    @property
    def drop(self) -> R_co:
        """Cancelled or expired."""

    @property
    def waited(self) -> float:
        """Seconds for which the engine was held back for this batch."""


# Not frozen, which would cost more for every batch.
@dataclass(slots=True)
class Batch(Generic[R]):
    """Requests on their way through the engine; times in monotonic seconds."""

    requests: R
    inputs: Mapping[str, Array]
    rows: int
    waited: float
    arrived: float
    """The request that led the batch."""
    taken: float
    gathered: float
    begun: Any = None
    """What the engine gave for a run that was begun."""


class Running(ABC, Generic[R]):
    """Runs the decisions of one model on one engine, on the thread that owns the engine.

    A decision as a whole, or in two halves where the engine can do so. A batch that fails is run
    again in two parts, and so on: one request must not fail its neighbours, and one of many costs
    them few runs.
    """

    def __init__(
        self,
        engine: Engine,
        batched: bool,
        observer: Observer,
        clock: Clock,
        about: Mapping[str, object] = NOTHING,
    ) -> None:
        """Run on an engine.

        Args:
            engine: opened.
            batched: whether the first dimension counts rows of requests.
            observer: told of every batch that ran.
            clock: monotonic seconds.
            about: what the log says of the model.
        """
        self._engine = engine
        self._about = about
        self._failures = BoundedLog(log, clock)
        self._names = [tensor.name for tensor in engine.signature.inputs]
        self._batched = batched
        self._observer = observer
        self._clock = clock
        # Who keeps something between requests has to know of those that never run.
        self._skip = engine.skip if isinstance(engine, StatefulEngine) else None

    def __call__(self, decision: Decided[R]) -> None:
        """Answer what is dropped, then run and answer the rest.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        self._drop_all(decision.drop)
        if len(decision.run):
            self._run(decision.run, decision.waited)

    def begin(self, decision: Decided[R]) -> Batch[R] | None:
        """Answer what is dropped and begin the rest; None if nothing is under way then.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        largest = max(self._engine.buckets, default=0)
        if not len(decision.run) or (largest and self._rows(decision.run) > largest):
            self(decision)
            return None
        self._drop_all(decision.drop)
        try:
            batch = self._gather(decision.run, decision.waited)
            batch.begun = self._overlapping().begin(batch.inputs, batch.rows)
        except BaseException as error:
            if self._failed(decision.run, error):
                raise
            return None
        return batch

    def finish(self, batch: Batch[R]) -> None:
        """Wait for a batch that was begun, and answer it.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        try:
            outputs = self._overlapping().finish(batch.begun, {})
            run = self._ended(batch, outputs)
        except BaseException as error:
            if self._failed(batch.requests, error):
                raise
            return
        self._answer(batch, outputs, run)

    def abandon(self, batch: Batch[R]) -> None:
        """Answer a batch that nobody can wait for any more."""
        self._fail(batch.requests)

    def _overlapping(self) -> Overlapping:
        assert isinstance(self._engine, Overlapping)
        return self._engine

    def _run(self, requests: R, waited: float) -> None:
        try:
            batch = self._gather(requests, waited)
            outputs = self._engine.run(batch.inputs, {}, batch.rows)
            run = self._ended(batch, outputs)
        except BaseException as error:
            if self._failed(requests, error):
                raise
            return
        self._answer(batch, outputs, run)

    def _gather(self, requests: R, waited: float) -> Batch[R]:
        arrived, taken = self._arrived(requests), self._clock()
        requests = self._arranged(requests)
        self._begun(requests)
        inputs = self._inputs(requests)
        rows = self._rows(requests)
        return Batch(requests, inputs, rows, waited, arrived, taken, self._clock())

    def _inputs(self, requests: R) -> Mapping[str, Array]:
        views = self._views(requests)
        if not self._batched:
            views = tuple(view.reshape(view.shape[1:]) for view in views)
        return dict(zip(self._names, views, strict=True))

    def _begun(self, requests: R) -> None:
        """Note that requests run from now on, where somebody else asks for it later."""
        del requests

    def _ended(self, batch: Batch[R], outputs: Mapping[str, Array]) -> Execution:
        if self._batched:
            check_rows(outputs, batch.rows)
        compute = self._clock() - batch.gathered
        gather, queued = batch.gathered - batch.taken, batch.taken - batch.arrived
        run = Execution(batch.rows, batch.waited, gather, compute, self._behind(), queued)
        if not self._tried(batch.requests):
            self._observer(run)
        return run

    def _failed(self, requests: R, error: BaseException) -> bool:
        """Answer a batch that failed, after another try if there is hope.

        Returns:
            True if the engine can run nothing more.
        """
        if not isinstance(error, SequenceRefused):
            self._tell(len(requests), error)
        ends = not isinstance(error, Exception) or (isinstance(error, EngineError) and error.fatal)
        if ends or len(requests) == 1:
            self._fail(requests, told(error))
        if not ends and len(requests) > 1:
            self._run_in_parts(requests)
        return ends

    def _tell(self, requests: int, error: BaseException) -> None:
        """Write to the log that a batch failed; callers can make that happen very often."""
        planned = isinstance(error, EngineError)
        bad_input = isinstance(error, EngineError) and error.bad_input
        self._failures(
            bad_input,
            logging.WARNING if bad_input else logging.ERROR,
            "a batch failed",
            {**self._about, "requests": requests, "error": str(error)},
            None if planned else error,
        )

    def _run_in_parts(self, requests: R) -> None:
        """Run what failed together as two batches."""
        first, second = self._halves(requests)
        try:
            self._run_living(first)
        except BaseException:
            # Those have their answers, and the instance ends.
            self._fail(second)
            raise
        self._run_living(second)

    def _run_living(self, requests: R) -> None:
        living = self._drop_dead(requests)
        if len(living):
            self._run(living, 0.0)

    def _drop_all(self, requests: R) -> None:
        if self._skip is not None and len(requests):
            self._skip_all(self._skip, requests)
        self._drop(requests)

    def _skip_all(self, skip: Callable[[Mapping[str, Array]], None], requests: R) -> None:
        for alone in self._apart(requests):
            try:
                skip(self._inputs(alone))
            except Exception as error:
                # Its front is gone, most likely, and its memory with it.
                log.warning("a sequence was not ended", extra={"why": str(error)})

    @abstractmethod
    def _tried(self, requests: R) -> bool:
        """True if no caller's request is among these, so that the run counts for nothing."""

    def _behind(self) -> int:
        """Return the rows that wait, where those who sent them cannot count them."""
        return 0

    def _arranged(self, requests: R) -> R:
        """Return the requests in the order of their rows in the batch."""
        return requests

    @abstractmethod
    def _arrived(self, requests: R) -> float:
        """Return when the first of the requests arrived."""

    @abstractmethod
    def _rows(self, requests: R) -> int:
        """Return the rows of all."""

    @abstractmethod
    def _views(self, requests: R) -> tuple[Array, ...]:
        """Return every input of a batch as one contiguous array."""

    @abstractmethod
    def _answer(self, batch: Batch[R], outputs: Mapping[str, Array], run: Execution) -> None:
        """Give each request its rows of every output."""

    @abstractmethod
    def _drop(self, requests: R) -> None:
        """Answer requests that are cancelled or expired."""

    @abstractmethod
    def _drop_dead(self, requests: R) -> R:
        """Answer those that are cancelled or expired by now, and return the others."""

    @abstractmethod
    def _fail(self, requests: R, error: InferdError | None = None) -> None:
        """Answer with an error; None: the engine failed."""

    @abstractmethod
    def _halves(self, requests: R) -> tuple[R, R]:
        """Split several requests into two parts, in order of arrival."""

    @abstractmethod
    def _apart(self, requests: R) -> Iterator[R]:
        """Yield each request alone, in order of arrival."""


def told(error: BaseException) -> InferdError | None:
    """Return what a caller is told of a run that failed; None: no details."""
    if isinstance(error, SequenceRefused):
        return error.error
    if isinstance(error, EngineError) and error.bad_input and not error.fatal:
        return InvalidInput(f"the model cannot run on this input: {error}")
    return None


def check_rows(outputs: Mapping[str, Array], rows: int) -> None:
    """Refuse outputs that cannot be split among the requests of a batch.

    Raises:
        EngineError: an output does not have one row for each row of the batch.
    """
    for name, array in outputs.items():
        if array.ndim == 0 or array.shape[0] != rows:
            raise EngineError(
                f"output {name!r} has shape {list(array.shape)} for a batch of {rows} rows"
            )
