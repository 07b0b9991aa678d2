"""The front's side of a link: submits requests, and answers them as the worker tells."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from inferd.tensors import Array

from inferd_server.batching.batch_size import NEVER
from inferd_server.batching.job import Job
from inferd_server.batching.run_costs import Alone
from inferd_server.errors import (
    TOO_CLOSE,
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    InvalidInput,
    QueueFull,
    SequenceNotFound,
    ShuttingDown,
    TooManySequences,
    WorkerLost,
)
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.processes.link.inputs import InputMemory, SharedRows
from inferd_server.processes.link.layout import (
    ALONE,
    CANCELLED,
    COMPLETION,
    MILLION,
    SUBMISSION,
    TRIAL,
    Counter,
    Status,
)
from inferd_server.processes.link.memory import LinkMemory
from inferd_server.processes.link.outputs import TEXT, read_part
from inferd_server.processes.link.pending import NEW, History, LinkTarget, Lost, PendingRequest
from inferd_server.sequences.store import ANEW

log = logging.getLogger(__name__)
LOOK_AGAIN_S = 1.0
"""Seconds after which a front looks for answers unasked."""
REFUSALS: Mapping[Status, tuple[type[InferdError], str]] = {
    Status.CANCELLED: (Cancelled, "the caller went away while the request waited"),
    Status.EXPIRED: (DeadlinePassed, TOO_CLOSE),
    Status.FAILED: (EngineFailure, ""),
    Status.LOST: (WorkerLost, "the engine of the model was lost"),
    Status.RETIRED: (HandleRetired, "the model was replaced before the request ran"),
    Status.TOO_LARGE: (
        # No later try finds more room.
        InvalidInput,
        "the outputs do not fit into the {answer_bytes} bytes for answers (answer_bytes)",
    ),
    Status.CLOSED: (ShuttingDown, "the model was unloaded before the request ran"),
    Status.NO_SEQUENCE: (
        SequenceNotFound,
        "the sequence is not known: it never started, it ended, one of its requests was not "
        f"answered, or it was silent for too long; {ANEW}",
    ),
    Status.MANY_SEQUENCES: (
        TooManySequences,
        "as many sequences are open as may be (max_sequences)",
    ),
}


Ran: TypeAlias = tuple[PendingRequest, int, float]
"""A request that ran, the first of its rows among the outputs, and how long it waited."""


@dataclass(frozen=True, slots=True)
class ReadPart:
    """The outputs of one run for requests of this link, as they were read."""

    position: int
    """In the ring of answers; a later part has another."""
    outputs: Mapping[str, Array] | None
    """None: they cannot be read."""
    run: Execution

    def outputs_of(self, pending: PendingRequest, row: int) -> Mapping[str, Array] | None:
        """Return a request's rows of every output, the first of which is `row`; None: none."""
        if self.outputs is None or not pending.target.batched:
            return self.outputs
        end = row + pending.job.rows
        return {name: array[row:end] for name, array in self.outputs.items()}


NOTHING_READ = ReadPart(-1, None, Execution(0, 0.0, 0.0, 0.0))


class FrontLink:
    """One link. Any thread may call any method."""

    def __init__(
        self, memory: LinkMemory, wake_worker: int, inputs: InputMemory | None = None
    ) -> None:
        """Begin with nothing in flight.

        Args:
            memory: mapped, reset.
            wake_worker: eventfd that the worker waits on.
            inputs: of the front's link to another worker, which has the same; None: its own.
        """
        self.inputs = inputs or InputMemory(memory.inputs, memory.forget_inputs)
        self._memory = memory
        self._wake_worker = wake_worker
        self._size = memory.layout.requests
        # Asked for with every request: the layout adds them up each time.
        self._submissions, self._completions = memory.layout.submissions, memory.layout.completions
        self._free = deque(range(self._size))
        self._pending: list[PendingRequest | None] = [None] * self._size
        self._places: dict[int, int] = {}
        self._rounds = 0
        self._submitted = 0
        self._consumed = 0
        self._part = NOTHING_READ
        # The thread that calls `turn`, and what it is going to do there: look, wake the worker.
        self._poller = 0
        self._looks = False
        self._wakes = False
        self._submitting = threading.Lock()
        self._consuming = threading.Lock()

    @property
    def size(self) -> int:
        """Requests that the worker may have."""
        return self._size

    @property
    def in_flight(self) -> int:
        """Requests that the worker has."""
        return self._size - len(self._free)

    def submit(self, job: Job, target: LinkTarget, history: History = NEW) -> bool:
        """Send a request to the worker; False if its model is closed, True if it is answered.

        One that ran when a worker died runs alone, lest it take others with it.
        """
        assert isinstance(job.slot.place, SharedRows)
        job.slot.place.seal()
        with self._submitting:
            if target.closed:
                return False
            if self._free:
                self._write(job, job.slot.place, target, history)
                return True
        job.fail(
            QueueFull(f"{self._size} requests are in flight at this front (max_requests): no room")
        )
        return True

    def waiting_rows(self, model: int) -> int:
        """Return how many rows of all fronts wait for the model of a number."""
        return self._memory.waiting(model)

    @property
    def busy(self) -> float:
        """How busy the worker's engines are, in 0..1."""
        return self._memory.read(Counter.BUSY) / MILLION

    def cancel(self, job: Job) -> None:
        """Tell the worker that a caller went away."""
        with self._submitting:
            place = self._places.get(id(job))
            if place is None:
                return
            self._memory.marks[place] |= CANCELLED
            pending = self._pending[place]
            if pending is not None and self._memory.begun[place] != pending.ticket:
                # Nobody waits for it, though the worker lets it go with its next batch alone.
                job.slot.give_up()

    def consume(self) -> bool:
        """Answer what the worker completed; True if there was anything."""
        with self._consuming:
            completed = self._memory.read(Counter.COMPLETED)
            first, self._consumed = self._consumed, completed
            if first == completed:
                return False
            try:
                self._answer_all(first, completed)
            finally:
                self._memory.advance(Counter.CONSUMED, completed - first)
                if self._memory.read(Counter.ROOM_WANTED):
                    os.eventfd_write(self._wake_worker, 1)
        return True

    def turn(self) -> float | None:
        """Wake the worker, and answer what it completed; before the polling thread sleeps.

        From the first request that this thread sends until then, the worker wakes nobody for an
        answer.

        Returns:
            Seconds after which to look again should nobody wake it; None if nothing is awaited.
        """
        if self._wakes:
            self._wakes = False
            self._wake()
        self.answer()
        self._poller = self._poller or threading.get_ident()
        if self._looks:
            self._looks = False
            self._memory.tell(Counter.FRONT_LOOKS, False)
            # Once more after saying so, lest an answer waits for the next event.
            self.answer()
        return LOOK_AGAIN_S if self.in_flight else None

    def answer(self) -> None:
        """Answer what the worker completed, and go on whatever becomes of that."""
        try:
            self.consume()
        except Exception:
            log.exception("answers could not be sent")

    def take_back(self) -> list[Lost]:
        """Return what the dead worker left unanswered, in order of arrival, and begin anew."""
        try:
            # What it completed stays completed.
            self.consume()
        except Exception:
            log.exception("answers of a worker that died could not be sent")
        # In this order: a request that is admitted anew is submitted while answers are consumed.
        with self._consuming, self._submitting:
            left = [pending for pending in self._pending if pending is not None]
            lost = [self._lost(pending) for pending in left]
            for pending in left:
                self._release(pending)
            self._submitted = self._consumed = 0
            self._part = NOTHING_READ
            self._memory.reset()
        return sorted(lost, key=lambda one: one.job.arrived)

    def _lost(self, pending: PendingRequest) -> Lost:
        before = pending.history
        ran = self._memory.begun[pending.ticket % self._size] == pending.ticket
        history = History(before.sent + 1, before.begun + ran)
        return Lost(pending.job, pending.target, history, ran)

    def _write(self, job: Job, rows: SharedRows, target: LinkTarget, history: History) -> None:
        place = self._free.popleft()
        self._rounds += 1
        ticket = self._rounds * self._size + place
        self._pending[place] = PendingRequest(ticket, job, target, history)
        self._places[id(job)] = place
        # Looked at after the place is known: a caller who goes away now marks it himself.
        self._memory.marks[place] = CANCELLED if job.cancelled else 0
        if job.trial:
            self._memory.marks[place] |= TRIAL
        if history.suspect or isinstance(job.key, Alone):
            self._memory.marks[place] |= ALONE
            self._memory.advance(Counter.SUSPECTS)
        SUBMISSION.pack_into(
            self._memory.bytes,
            self._submissions + self._submitted % self._size * SUBMISSION.size,
            *(ticket, rows.lane, rows.block, job.sequence),
            *(job.arrived, NEVER if job.deadline is None else job.deadline, job.delay_at),
            *(target.number, job.slot.start, job.rows, job.level),
        )
        self._submitted += 1
        self._memory.advance(Counter.SUBMITTED)
        polls = threading.get_ident() == self._poller
        if polls and self.in_flight > 1:
            # What is there by then makes one batch, for one wake-up.
            self._wakes = True
        else:
            self._wake()
        if polls and not self._looks:
            self._looks = True
            self._memory.tell(Counter.FRONT_LOOKS, True)

    def _wake(self) -> None:
        """Wake the worker, if it sleeps."""
        if self._memory.read(Counter.WORKER_SLEEPS):
            os.eventfd_write(self._wake_worker, 1)

    def _answer_all(self, first: int, end: int) -> None:
        """Answer the requests of the completions between two positions, those of a run together."""
        ran: list[Ran] = []
        for ticket, part, queue, *times, status, row, rows in self._memory.records(
            COMPLETION, self._completions, first, end
        ):
            pending = self._pending[ticket % self._size]
            if pending is None or pending.ticket != ticket:
                log.error("an answer to nobody", extra={"ticket": ticket})
                continue
            self._release(pending)
            if status != Status.OK:
                pending.job.fail(self._refusal(status, part))
                self._left(pending)
                continue
            if part != self._part.position:
                self._finish(ran)
                ran = []
                self._part = self._read(part, pending.target, Execution(rows, *times))
            ran.append((pending, row, queue))
        self._finish(ran)

    def _finish(self, ran: Sequence[Ran]) -> None:
        """Answer requests of one run, whose outputs were read, in order."""
        if not ran:
            return
        slots, part = [pending.job.slot for pending, _, _ in ran], self._part
        arena = slots[0].arena
        arena.count_out(slots)
        for pending, row, queue in ran:
            outputs = part.outputs_of(pending, row)
            if outputs is None:
                pending.job.fail(EngineFailure())
            else:
                pending.job.answer(outputs, Phases(queue, part.run))
            self._left(pending)
        arena.release(slots)

    def _left(self, pending: PendingRequest) -> None:
        """Tell whose stream a request was of that the worker has answered it."""
        if pending.job.stream is None:
            return
        try:
            pending.target.left(pending.job)
        except Exception:
            # Those behind it in this run must be answered all the same.
            log.exception("what waited in a stream could not be sent")

    def _release(self, pending: PendingRequest) -> None:
        place = pending.ticket % self._size
        self._pending[place] = None
        self._places.pop(id(pending.job), None)
        self._free.append(place)

    def _refusal(self, status: int, part: int) -> InferdError:
        """Return the error of a request, and what the worker says of it in the place of outputs."""
        layout = self._memory.layout
        try:
            if status != Status.BAD_INPUT:
                return error_of(Status(status), layout.answer_bytes)
            (said,) = read_part(self._memory.answers[part % layout.answer_room :], [TEXT])
            return InvalidInput(str(said.item(), errors="replace"))
        except Exception:
            log.exception("an answer could not be read")
            return EngineFailure()

    def _read(self, position: int, target: LinkTarget, run: Execution) -> ReadPart:
        """Read the outputs at a position of the ring of answers, as views."""
        memory = self._memory.answers[position % self._memory.layout.answer_room :]
        try:
            arrays = read_part(memory, [dtype for _, dtype in target.outputs])
            if target.batched and not all(array.ndim for array in arrays):
                raise ValueError("an output has no rows")
            names = [name for name, _ in target.outputs]
            return ReadPart(position, dict(zip(names, arrays, strict=True)), run)
        except Exception:
            log.exception("answers could not be read")
            return ReadPart(position, None, run)


def error_of(status: Status, answer_bytes: int) -> InferdError:
    """Return the error for a request that was not answered with outputs."""
    kind, text = REFUSALS[status]
    return kind(text.format(answer_bytes=answer_bytes)) if text else kind()
