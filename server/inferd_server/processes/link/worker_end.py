"""The worker's end of a link: takes a front's requests, and answers them by whole batches."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from inferd.tensors import Array

from inferd_server.batching.run_costs import Alone
from inferd_server.errors import (
    Cancelled,
    DeadlinePassed,
    EngineFailure,
    HandleRetired,
    InferdError,
    InvalidInput,
    SequenceNotFound,
    ShuttingDown,
    TooManySequences,
    WorkerLost,
)
from inferd_server.monitoring.phases import Execution
from inferd_server.processes.link.inputs import read_rows
from inferd_server.processes.link.layout import (
    ALONE,
    COMPLETION,
    MILLION,
    SUBMISSION,
    Counter,
    Status,
)
from inferd_server.processes.link.link_request import LinkRequest
from inferd_server.processes.link.memory import LinkMemory
from inferd_server.processes.link.outputs import AnswerPart, AnswerRing

log = logging.getLogger(__name__)
STATUSES: Mapping[type[InferdError], Status] = {
    Cancelled: Status.CANCELLED,
    DeadlinePassed: Status.EXPIRED,
    WorkerLost: Status.LOST,
    HandleRetired: Status.RETIRED,
    ShuttingDown: Status.CLOSED,
    SequenceNotFound: Status.NO_SEQUENCE,
    TooManySequences: Status.MANY_SEQUENCES,
    InvalidInput: Status.BAD_INPUT,
}
"""What a front is told of an error; of all others, that the engine failed."""
LANES = 256
"""Lanes whose arrays are kept."""
NO_RUN = Execution(0, 0.0, 0.0, 0.0)


# Not frozen, which would cost more for every batch.
@dataclass(slots=True)
class BatchAnswers:
    """Answers to requests of one link, and the outputs that they are parts of, if any."""

    requests: Sequence[LinkRequest]
    status: Status
    outputs: tuple[Array, ...] | None = None
    taken: float = 0.0
    """When the batch was taken, in monotonic seconds."""
    run: Execution = NO_RUN


class WorkerLink:
    """One link, the sender of its requests. Any thread may answer.

    `take`, `attach`, `detach`, `sleep` and `wake` are called by one thread at a time.
    """

    def __init__(self, index: int, memory: LinkMemory, wake: int) -> None:
        """Begin detached.

        Args:
            index: of the link.
            memory: mapped.
            wake: eventfd that the front waits on.
        """
        self.index = index
        self.attached = False
        self.epoch = 0
        self.marks = memory.marks
        """Of the front for each place: CANCELLED, ALONE, TRIAL."""
        self._memory = memory
        self._wake = wake
        layout = memory.layout
        self._size = layout.requests
        # Asked for with every batch: the layout adds them up each time.
        self._submissions, self._completions = layout.submissions, layout.completions
        self._taken = 0
        self._completed = 0
        self._ring = AnswerRing(memory.layout.answer_room)
        self._backlog: deque[BatchAnswers] = deque()
        # True while the front is asked to tell when it has copied answers out.
        self._waits = False
        self._lanes: dict[int, tuple[tuple[Array, ...] | None, Hashable]] = {}
        self._lock = threading.Lock()

    @property
    def inputs(self) -> Array:
        """The memory that rows of requests are in: bytes, in whole pages."""
        return self._memory.inputs

    @property
    def backlog(self) -> bool:
        """True while answers wait for room."""
        return bool(self._backlog)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes of answers so far, and those that the front has not taken."""
        with self._lock:
            self._ring.release(self._memory.read(Counter.CONSUMED))
            return self._ring.taken, self._ring.held

    def trim(self) -> None:
        """Return the memory for answers to the system, if none is there now."""
        with self._lock:
            self._ring.release(self._memory.read(Counter.CONSUMED))
            if self.attached and not self._ring.held:
                self._memory.forget_answers()

    def attach(self) -> None:
        """Begin with a front that begins, too."""
        with self._lock:
            self.epoch += 1
            self._taken = self._completed = 0
            self._ring = AnswerRing(self._memory.layout.answer_room)
            self._backlog.clear()
            self._waits = False
            self._lanes.clear()
            self.attached = True

    def detach(self) -> None:
        """Touch the memory no more: the front is gone, and what it asked is answered nobody."""
        with self._lock:
            self.epoch += 1
            self.attached = False
            self._backlog.clear()
            self._lanes.clear()

    def take(self, dtypes: Mapping[int, Sequence[np.dtype[Any]]]) -> list[LinkRequest]:
        """Return the requests that were written since the last time.

        Args:
            dtypes: of the inputs of each model, by its number.
        """
        submitted = self._memory.read(Counter.SUBMITTED) if self.attached else self._taken
        if submitted == self._taken:
            return []
        found: list[LinkRequest] = []
        epoch, size, lanes = self.epoch, self._size, self._lanes
        for record in self._memory.records(SUBMISSION, self._submissions, self._taken, submitted):
            ticket, lane, block, sequence, arrived, deadline, delay_at, *rest = record
            model, start, rows, level = rest
            arrays, key = lanes.get(lane) or self._read(lane, block, dtypes.get(model))
            found.append(
                LinkRequest(
                    self, epoch, ticket, ticket % size, model, arrays, key, start, rows, arrived,
                    deadline, level, sequence, delay_at,
                )
            )  # fmt: skip
        self._taken = submitted
        if self._memory.read(Counter.SUSPECTS):
            self._part(found)
        return found

    def tell_waiting(self, model: int, rows: int) -> None:
        """Tell the front how many rows wait for the model of a number."""
        if self.attached:
            self._memory.tell_waiting(model, rows)

    def tell_busy(self, ratio: float) -> None:
        """Tell the front how busy the engines are, in 0..1."""
        if self.attached:
            self._memory.tell(Counter.BUSY, round(ratio * MILLION))

    def sleep(self) -> bool:
        """Have the front wake the worker from now on; False if there is a request already."""
        if not self.attached:
            return True
        self._memory.tell(Counter.WORKER_SLEEPS, True)
        return self._memory.read(Counter.SUBMITTED) == self._taken

    def wake(self) -> None:
        """Be woken no more: the worker looks by itself."""
        if self.attached:
            self._memory.tell(Counter.WORKER_SLEEPS, False)

    def begin(self, requests: Sequence[LinkRequest]) -> tuple[Array, ...]:
        """Note that requests run from now on, who may end this process, and return their rows.

        Raises:
            InferdError: as `views`.
        """
        begun = self._memory.begun
        with self._lock:
            if self._awaited(requests):
                for request in requests:
                    begun[request.place] = request.ticket
        return self.views(requests)

    def views(self, requests: Sequence[LinkRequest]) -> tuple[Array, ...]:
        """Return every input of requests as one contiguous array: a view of neighbours, or a copy.

        Raises:
            Cancelled: the front that sent them is gone, and the memory may be the next one's.
            EngineFailure: the rows cannot be read.
        """
        if requests[0].epoch != self.epoch:
            raise Cancelled("the front that sent this request is gone")
        parts = [
            tuple([array[start:end] for array in arrays]) for arrays, start, end in spans(requests)
        ]
        if len(parts) == 1:
            return parts[0]
        return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))

    def finish(
        self,
        requests: Sequence[LinkRequest],
        outputs: Mapping[str, Array],
        taken: float,
        run: Execution,
    ) -> None:
        """Answer requests that ran, with their rows of the outputs, in order."""
        self._answer(BatchAnswers(requests, Status.OK, tuple(outputs.values()), taken, run))

    def fail(self, requests: Sequence[LinkRequest], error: InferdError) -> None:
        """Answer requests without outputs, or with a sentence in their place."""
        status = STATUSES.get(type(error), Status.FAILED)
        said = None
        if status is Status.BAD_INPUT:
            said = (np.array([str(error).encode()], dtype=np.object_),)
        self._answer(BatchAnswers(requests, status, said))

    def flush(self) -> None:
        """Write answers that waited for room."""
        with self._lock:
            self._flush()

    def _read(
        self, lane: int, block: int, dtypes: Sequence[np.dtype[Any]] | None
    ) -> tuple[tuple[Array, ...] | None, Hashable]:
        """Return every input of a lane, and the key of its requests."""
        if dtypes is None:
            # Its model is gone, and it is not going to run.
            return None, None
        try:
            arrays = read_rows(self._memory.inputs, block, dtypes)
        except Exception:
            log.exception("rows of a request cannot be read")
            return None, object()
        found = arrays, tuple([array.shape[1:] for array in arrays])
        if len(self._lanes) >= LANES:
            del self._lanes[next(iter(self._lanes))]
        self._lanes[lane] = found
        return found

    def _part(self, requests: Iterable[LinkRequest]) -> None:
        """Give requests that are to run alone a key of their own."""
        for request in requests:
            if self.marks[request.place] & ALONE:
                request.key = Alone(request.key)

    def _awaited(self, requests: Sequence[LinkRequest]) -> bool:
        """True if the front that sent requests is still there."""
        return self.attached and requests[0].epoch == self.epoch

    def _answer(self, answers: BatchAnswers) -> None:
        with self._lock:
            if self._awaited(answers.requests):
                self._backlog.append(answers)
                self._flush()

    def _flush(self) -> None:
        while self._backlog and self._write_safely(self._backlog[0]):
            self._backlog.popleft()

    def _write_safely(self, answers: BatchAnswers) -> bool:
        try:
            return self._write(answers)
        except Exception:
            # Outputs that cannot be encoded, or no memory to do so.
            log.exception("answers could not be written")
            self._complete(refused(answers, Status.FAILED))
            return True

    def _write(self, answers: BatchAnswers) -> bool:
        """Write answers; False while there is no room."""
        if answers.outputs is None:
            self._complete(answers)
            return True
        part = AnswerPart(answers.outputs)
        if part.tensor_bytes > self._memory.layout.answer_bytes or part.size > self._ring.size:
            self._split(answers)
            return True
        place = self._place(part.size, len(answers.requests))
        if place is None:
            return False
        part.write(self._memory.answers, place % self._ring.size)
        self._complete(answers, place)
        return True

    def _place(self, size: int, count: int) -> int | None:
        self._ring.release(self._memory.read(Counter.CONSUMED))
        place = self._ring.place(size, self._completed + count)
        if place is None:
            # Looked at once more after saying so, lest both sides wait for each other.
            self._memory.tell(Counter.ROOM_WANTED, True)
            self._ring.release(self._memory.read(Counter.CONSUMED))
            place = self._ring.place(size, self._completed + count)
            self._waits = place is None
            if place is not None:
                self._memory.tell(Counter.ROOM_WANTED, False)
        elif self._waits:
            self._waits = False
            self._memory.tell(Counter.ROOM_WANTED, False)
        return place

    def _split(self, answers: BatchAnswers) -> None:
        """Put what is too large for one part into two, or refuse what cannot be split."""
        requests, outputs = answers.requests, answers.outputs
        if len(requests) == 1 or outputs is None:
            self._backlog.insert(1, refused(answers, Status.TOO_LARGE))
            return
        half = len(requests) // 2
        row = sum(request.rows for request in requests[:half])
        first, second = tuple(o[:row] for o in outputs), tuple(o[row:] for o in outputs)
        self._backlog.insert(1, replace(answers, requests=requests[half:], outputs=second))
        self._backlog.insert(1, replace(answers, requests=requests[:half], outputs=first))

    def _complete(self, answers: BatchAnswers, part: int = 0) -> None:
        """Write the completions of answers whose outputs are in a part, and wake the front."""
        memory, run, taken, status = self._memory.bytes, answers.run, answers.taken, answers.status
        begin, size, width = self._completions, self._size, COMPLETION.size
        times = run.waited, run.gather, run.compute
        place, row, pack = self._completed, 0, COMPLETION.pack_into
        for request in answers.requests:
            pack(
                memory, begin + place % size * width,
                request.ticket, part, taken - request.arrived, *times,
                status, row, run.rows,
            )  # fmt: skip
            place += 1
            row += request.rows
        self._completed = place
        self._memory.advance(Counter.COMPLETED, len(answers.requests))
        if not self._memory.read(Counter.FRONT_LOOKS):
            os.eventfd_write(self._wake, 1)


def refused(answers: BatchAnswers, status: Status) -> BatchAnswers:
    """Return answers without the outputs, which cannot be sent."""
    for request in answers.requests:
        request.refused = True
    return replace(answers, status=status, outputs=None)


def spans(requests: Sequence[LinkRequest]) -> Iterator[tuple[tuple[Array, ...], int, int]]:
    """Yield the rows of requests: the arrays, the first row and the end of each run of neighbours.

    Raises:
        EngineFailure: rows cannot be read.
    """
    arrays, start, end = requests[0].arrays, requests[0].start, requests[0].start
    for request in requests:
        if request.arrays is not arrays or request.start != end:
            if arrays is None:
                raise EngineFailure
            yield arrays, start, end
            arrays, start = request.arrays, request.start
            end = start
        end += request.rows
    if arrays is None:
        raise EngineFailure
    yield arrays, start, end
