"""The runner of one engine: batches in, every request answered.

Where requests come from stands behind `Sender`: callers of this process (`batching/job.py`), or a
front process (`processes/link/worker_end.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError, Overlapping

from inferd_server.batching.decision import Decision, Waiting, expired
from inferd_server.batching.fair_share import Turn
from inferd_server.batching.fatal import End, go_on, is_fatal
from inferd_server.batching.run_costs import RunCosts
from inferd_server.errors import (
    NOTHING,
    TOO_CLOSE,
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    InferdError,
    InvalidInput,
)
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.phases import Execution
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.store import SequenceRefused

log = logging.getLogger(__name__)
Clock = Callable[[], float]
Observer = Callable[[Execution], None]


class Sender(Protocol):
    """Where requests come from. Called once for each batch; all of `requests` are of this sender.

    Any thread may call.
    """

    def begin(self, requests: Sequence[Any]) -> tuple[Array, ...]:
        """Note that requests run from now on, and return their rows as `views` does."""

    def views(self, requests: Sequence[Any]) -> tuple[Array, ...]:
        """Return every input of requests as one contiguous array, rows in the order given.

        Raises:
            InferdError: the rows cannot be read.
        """

    def finish(
        self, requests: Sequence[Any], outputs: Mapping[str, Array], taken: float, run: Execution
    ) -> None:
        """Answer requests.

        Args:
            requests: in the order of their rows; several only where outputs have rows.
            outputs: of these requests alone, in the order of the signature.
            taken: when their batch was taken, in monotonic seconds.
            run: the engine's.
        """

    def fail(self, requests: Sequence[Any], error: InferdError) -> None:
        """Answer requests with an error."""


class Request(Waiting, Protocol):
    """A request, as far as its runner needs to know it."""

    @property
    def trial(self) -> bool:
        """It is no caller's, and its run counts for nothing."""

    @property
    def sender(self) -> Sender:
        """Where it comes from."""


R = TypeVar("R", bound=Request)
Part = tuple[Sender, Sequence[R]]
"""The requests of a batch that are of one sender."""


# Not frozen, which would cost more for every batch.
@dataclass(slots=True)
class Batch(Generic[R]):
    """Requests on their way through the engine; times in monotonic seconds."""

    requests: Sequence[R]
    """In the order in which they were due."""
    parts: Sequence[Part[R]]
    """In the order of their rows."""
    inputs: Mapping[str, Array]
    rows: int
    waited: float
    taken: float
    gathered: float
    begun: Any = None
    """What the engine gave for a run that was begun."""


class Runner(Generic[R]):
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
        turn: Turn | None = None,
        end: End = go_on,
        costs: RunCosts | None = None,
        finished: Callable[[Sequence[R]], None] = lambda _: None,
    ) -> None:
        """Run on an engine.

        Args:
            engine: opened.
            batched: whether the first dimension counts rows of requests.
            observer: told of every batch that ran.
            clock: monotonic seconds.
            about: what the log says of the model.
            turn: taken for each run, the first one's before its decision; None: all may run.
            end: called with an error after which the engine can run nothing more.
            costs: learns what runs take; None: nobody does.
            finished: called with the requests of sequences once they are answered.
        """
        self._costs = RunCosts() if costs is None else costs
        # When the engine was done with the last batch.
        self._ended_at = float("-inf")
        # Seconds of runs that ended; since when one is under way, if any is; and how many are of
        # those that were begun apart.
        self._busy = 0.0
        self._since: float | None = None
        self._begun = 0
        self._engine = engine
        self._about = about
        self._failures = BoundedLog(log, clock)
        self._inputs = [tensor.name for tensor in engine.signature.inputs]
        self._outputs = [tensor.name for tensor in engine.signature.outputs]
        self._batched = batched
        self._observer = observer
        self._clock = clock
        self._turn = turn
        self._end = end
        # What a step left is for nobody if its caller does not get the outputs.
        self._stateful = engine if isinstance(engine, StatefulEngine) else None
        self._finished = finished

    def busy(self, now: float) -> float:
        """Return for how many seconds the engine ran until now; any thread may ask."""
        while True:
            busy, since, ended = self._busy, self._since, self._ended_at
            # Else a run ended meanwhile, which would be left out.
            if busy == self._busy:
                return busy if since is None else busy + max(0.0, now - max(since, ended))

    def __call__(self, decision: Decision[R]) -> None:
        """Answer what is dropped, then run and answer the rest.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        if self._stateful is not None:
            self._run_steps(self._stateful, decision)
            return
        if decision.drop:
            self._drop(decision.drop)
        if decision.run:
            self._run(decision.run, decision.waited)

    def _run_steps(self, engine: StatefulEngine, decision: Decision[R]) -> None:
        """Run steps of sequences, and end the sequences of those that nobody got an answer to."""
        requests = (*decision.drop, *decision.run)
        try:
            self._drop(decision.drop)
            if decision.run:
                self._run(decision.run, decision.waited)
        finally:
            # Looked at last: a caller may have gone while the answer was on its way.
            for request in requests:
                if request.cancelled:
                    engine.end(request.sequence)
            self._finished(requests)

    def begin(self, decision: Decision[R]) -> Batch[R] | None:
        """Answer what is dropped and begin the rest; None if nothing is under way then.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        largest = max(self._engine.buckets, default=0)
        if not decision.run or (largest and rows_of(decision.run) > largest):
            self(decision)
            return None
        if decision.drop:
            self._drop(decision.drop)
        try:
            batch = self._gather(decision.run, decision.waited)
            batch.begun = self._begin(batch)
        except BaseException as error:
            if self._failed(decision.run, error):
                raise
            return None
        self._begun += 1
        return batch

    def finish(self, batch: Batch[R]) -> None:
        """Wait for a batch that was begun, and answer it.

        Raises:
            EngineError: a fatal one, after every request was answered.
        """
        try:
            self._begun -= 1
            try:
                outputs = self._overlapping().finish(batch.begun, {})
            finally:
                self._leave()
            outputs, run = self._ended(batch, outputs)
        except BaseException as error:
            if self._failed(batch.requests, error):
                raise
            return
        self._answer(batch, outputs, run)

    def ends(self, batch: Batch[R]) -> float:
        """Return when a batch that was begun is expected to end, in monotonic seconds."""
        return batch.taken + self._costs.of(batch.requests[0].key).likely(batch.rows)

    def abandon(self, batch: Batch[R]) -> None:
        """Answer a batch that nobody can wait for any more."""
        self._leave()
        self._fail(batch.requests, EngineFailure())

    def _overlapping(self) -> Overlapping:
        assert isinstance(self._engine, Overlapping)
        return self._engine

    def _begin(self, batch: Batch[R]) -> Any:
        if self._turn is not None:
            self._turn.begin()
        try:
            return self._overlapping().begin(batch.inputs, batch.rows)
        except BaseException:
            self._leave()
            raise

    def _leave(self) -> None:
        if self._turn is not None:
            self._turn.leave()

    def _run(self, requests: Sequence[R], waited: float) -> None:
        try:
            batch = self._gather(requests, waited)
            outputs, run = self._ended(batch, self._execute(batch))
        except BaseException as error:
            if self._failed(requests, error):
                raise
            return
        self._answer(batch, outputs, run)

    def _execute(self, batch: Batch[R]) -> Mapping[str, Array]:
        if self._turn is None:
            return self._engine.run(batch.inputs, {}, batch.rows)
        self._turn.begin()
        try:
            return self._engine.run(batch.inputs, {}, batch.rows)
        finally:
            self._turn.leave()

    def _gather(self, requests: Sequence[R], waited: float) -> Batch[R]:
        if self._turn is not None:
            # Before the clock is read: to wait for a turn is no part of a run.
            self._turn.enter()
        taken = self._clock()
        if self._since is None:
            self._since = taken
        parts = by_sender(requests)
        inputs = self._named([sender.begin(own) for sender, own in parts])
        return Batch(requests, parts, inputs, rows_of(requests), waited, taken, self._clock())

    def _named(self, parts: Sequence[tuple[Array, ...]]) -> Mapping[str, Array]:
        """Return the inputs of a batch by name, given those of each part."""
        views = parts[0]
        if len(parts) > 1:
            views = tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        if not self._batched:
            views = tuple(view.reshape(view.shape[1:]) for view in views)
        return dict(zip(self._inputs, views, strict=True))

    def _ended(
        self, batch: Batch[R], outputs: Mapping[str, Array]
    ) -> tuple[Mapping[str, Array], Execution]:
        """Return the outputs in the order of the signature, and the run."""
        if self._batched:
            check_rows(outputs, batch.rows)
        ordered = {name: outputs[name] for name in self._outputs}
        now = self._clock()
        compute = now - batch.gathered
        # Not the time for which it stood behind another one that was under way.
        seconds, self._ended_at = now - max(batch.taken, self._ended_at), now
        self._since = now if self._begun else None
        self._busy += seconds
        self._costs.learn(batch.requests[0].key, batch.rows, seconds, now)
        gather, queued = batch.gathered - batch.taken, batch.taken - batch.requests[0].arrived
        run = Execution(batch.rows, batch.waited, gather, compute, queued)
        # Trials come one by one: the first request tells most.
        if not (batch.requests[0].trial and all(request.trial for request in batch.requests)):
            self._observer(run)
        return ordered, run

    def _answer(self, batch: Batch[R], outputs: Mapping[str, Array], run: Execution) -> None:
        """Give each sender the rows of its requests."""
        if self._stateful is not None and (dead := self._dead(batch.requests)):
            self._drop(dead)
            batch, outputs = without(batch, dead, outputs)
        if len(batch.parts) == 1:
            sender, requests = batch.parts[0]
            sender.finish(requests, outputs, batch.taken, run)
            return
        row = 0
        for sender, requests in batch.parts:
            end = row + rows_of(requests)
            own = {name: array[row:end] for name, array in outputs.items()}
            sender.finish(requests, own, batch.taken, run)
            row = end

    def _failed(self, requests: Sequence[R], error: BaseException) -> bool:
        """Answer a batch that failed, after another try if there is hope.

        Returns:
            True if the engine can run nothing more.
        """
        if is_fatal(error):
            self._end(error)
        now = self._clock()
        self._busy = self.busy(now)
        self._ended_at, self._since = now, now if self._begun else None
        if not isinstance(error, SequenceRefused):
            self._tell(len(requests), error)
        ends = not isinstance(error, Exception) or is_fatal(error)
        if ends or len(requests) == 1:
            self._fail(requests, told(error))
        else:
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

    def _run_in_parts(self, requests: Sequence[R]) -> None:
        """Run what failed together as two batches."""
        middle = len(requests) // 2
        try:
            self._run_living(requests[:middle])
        except BaseException:
            # Those have their answers, and the instance ends.
            self._fail(requests[middle:], EngineFailure())
            raise
        self._run_living(requests[middle:])

    def _run_living(self, requests: Sequence[R]) -> None:
        """Run requests, without those that are cancelled or expired when their turn comes."""
        if self._turn is not None:
            self._turn.enter()
        dead = self._dead(requests)
        if dead:
            self._drop(dead)
            requests = [request for request in requests if request not in dead]
        if requests:
            self._run(requests, 0.0)

    def _dead(self, requests: Sequence[R]) -> Sequence[R]:
        """Return the requests that are cancelled or expired by now."""
        now = self._clock()
        return [request for request in requests if request.cancelled or expired(request, now)]

    def _drop(self, requests: Sequence[R]) -> None:
        """Answer requests that are cancelled or expired."""
        gone: list[R] = []
        late: list[R] = []
        for request in requests:
            (gone if request.cancelled else late).append(request)
        self._fail(gone, Cancelled("the caller went away while the request waited"))
        self._fail(late, DeadlinePassed(TOO_CLOSE))

    def _fail(self, requests: Sequence[R], error: InferdError) -> None:
        if self._stateful is not None:
            for request in requests:
                self._stateful.end(request.sequence)
        if requests:
            for sender, own in by_sender(requests):
                sender.fail(own, error)


def without(
    batch: Batch[R], gone: Sequence[R], outputs: Mapping[str, Array]
) -> tuple[Batch[R], Mapping[str, Array]]:
    """Return a batch, and its outputs, without some requests of one row each."""
    parts: list[Part[R]] = []
    kept: list[int] = []
    row = 0
    for sender, requests in batch.parts:
        own = [request for request in requests if request not in gone]
        kept += [row + place for place, request in enumerate(requests) if request not in gone]
        row += len(requests)
        if own:
            parts.append((sender, own))
    if not parts:
        return replace(batch, requests=(), parts=()), {}
    return replace(batch, parts=parts), {name: array[kept] for name, array in outputs.items()}


def rows_of(requests: Sequence[Request]) -> int:
    """Return the rows of all."""
    return sum([request.rows for request in requests])


def by_sender(requests: Sequence[R]) -> Sequence[Part[R]]:
    """Return requests by sender, those of each in the order given."""
    first = requests[0].sender
    for request in requests:
        if request.sender is not first:
            break
    else:
        return ((first, requests),)
    found: dict[Sender, list[R]] = {}
    for request in requests:
        sender = request.sender
        own = found.get(sender)
        if own is None:
            found[sender] = [request]
        else:
            own.append(request)
    return tuple(found.items())


def told(error: BaseException) -> InferdError:
    """Return what a caller is told of a run that failed."""
    if isinstance(error, SequenceRefused):
        return error.error
    if isinstance(error, EngineError) and error.bad_input and not error.fatal:
        return InvalidInput(f"the model cannot run on this input: {error}")
    return EngineFailure()


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
