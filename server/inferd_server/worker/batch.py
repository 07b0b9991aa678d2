"""Runs one batch: slots in, every job answered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError

from inferd_server.errors import Cancelled, DeadlinePassed, EngineFailure
from inferd_server.scheduler.decision import Decision, expired
from inferd_server.scheduler.job import Execution, Job, Phases
from inferd_server.scheduler.slot import batch_views

log = logging.getLogger(__name__)
Clock = Callable[[], float]
Observer = Callable[[Execution], None]


class BatchRunner:
    """Runs the decisions of one model on one engine, on the thread that owns the engine."""

    def __init__(self, engine: Engine, batched: bool, observer: Observer, clock: Clock) -> None:
        self._engine = engine
        self._names = [tensor.name for tensor in engine.signature.inputs]
        self._batched = batched
        self._observer = observer
        self._clock = clock

    def __call__(self, decision: Decision[Job]) -> None:
        """Answer what is dropped, then run and answer the rest.

        Raises:
            EngineError: a fatal one, after every job was answered.
        """
        for job in decision.drop:
            job.fail(_reason_to_drop(job))
        try:
            if decision.run:
                self._run(decision.run, decision.waited)
        except BaseException:
            # It ends this instance; answers that were sent stay.
            for job in decision.run:
                job.fail(EngineFailure())
            raise

    def _run(self, jobs: Sequence[Job], waited: float) -> None:
        try:
            outputs, taken, run = self._execute(jobs, waited)
        except Exception as error:
            self._failed(jobs, error)
            return
        if self._batched:
            _answer(jobs, outputs, taken, run)
        else:
            jobs[0].finish(outputs, Phases(taken - jobs[0].arrived, run))

    def _execute(
        self, jobs: Sequence[Job], waited: float
    ) -> tuple[Mapping[str, Array], float, Execution]:
        taken = self._clock()
        views = batch_views([job.slot for job in jobs])
        if not self._batched:
            views = tuple(view.reshape(view.shape[1:]) for view in views)
        gathered = self._clock()
        rows = sum([job.rows for job in jobs])
        outputs = self._engine.run(dict(zip(self._names, views, strict=True)), {}, rows)
        if self._batched:
            check_rows(outputs, rows)
        done = self._clock()
        run = Execution(rows, waited, gathered - taken, done - gathered)
        self._observer(run)
        return outputs, taken, run

    def _failed(self, jobs: Sequence[Job], error: Exception) -> None:
        where = {"requests": len(jobs), "error": str(error)}
        planned = isinstance(error, EngineError)
        log.error("a batch failed", extra=where, exc_info=None if planned else error)
        if isinstance(error, EngineError) and error.fatal:
            raise error
        if len(jobs) == 1:
            jobs[0].fail(EngineFailure())
            return
        # One request must not fail its neighbours: each runs alone.
        for job in jobs:
            if job.cancelled or expired(job, self._clock()):
                job.fail(_reason_to_drop(job))
            else:
                self._run([job], 0.0)


def _answer(
    jobs: Sequence[Job], outputs: Mapping[str, Array], taken: float, run: Execution
) -> None:
    """Give each job its rows of every output."""
    tensors = tuple(outputs.items())
    start = 0
    for job in jobs:
        end = start + job.rows
        own = {}
        for name, array in tensors:
            own[name] = array[start:end]
        start = end
        job.finish(own, Phases(taken - job.arrived, run))


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


def _reason_to_drop(job: Job) -> Cancelled | DeadlinePassed:
    if job.cancelled:
        return Cancelled("the caller went away while the request waited")
    return DeadlinePassed("the deadline passed while the request waited for its batch")
