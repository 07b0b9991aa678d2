"""Runs batches of this process: slots in, every job answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from inferd.tensors import Array

from inferd_server.errors import Cancelled, DeadlinePassed, EngineFailure, InferdError
from inferd_server.scheduler.decision import expired
from inferd_server.scheduler.job import Execution, Job, Phases
from inferd_server.scheduler.slot import batch_views
from inferd_server.worker.running import Batch, Running

Jobs = Sequence[Job]


class BatchRunner(Running[Jobs]):
    """Runs jobs, whose rows are in slots."""

    def _arrived(self, requests: Jobs) -> float:
        return requests[0].arrived

    def _rows(self, requests: Jobs) -> int:
        return sum([job.rows for job in requests])

    def _tried(self, requests: Jobs) -> bool:
        return requests[0].trial and all(job.trial for job in requests)

    def _views(self, requests: Jobs) -> tuple[Array, ...]:
        return batch_views([job.slot for job in requests])

    def _answer(self, batch: Batch[Jobs], outputs: Mapping[str, Array], run: Execution) -> None:
        if not self._batched:
            (job,) = batch.requests
            job.finish(outputs, Phases(batch.taken - job.arrived, run))
            return
        tensors = tuple(outputs.items())
        start = 0
        for job in batch.requests:
            end = start + job.rows
            own = {}
            for name, array in tensors:
                own[name] = array[start:end]
            start = end
            job.finish(own, Phases(batch.taken - job.arrived, run))

    def _drop(self, requests: Jobs) -> None:
        for job in requests:
            job.fail(_reason_to_drop(job))

    def _drop_dead(self, requests: Jobs) -> Jobs:
        now = self._clock()
        dead = [job for job in requests if job.cancelled or expired(job, now)]
        self._drop(dead)
        return [job for job in requests if job not in dead]

    def _halves(self, requests: Jobs) -> tuple[Jobs, Jobs]:
        middle = len(requests) // 2
        return requests[:middle], requests[middle:]

    def _fail(self, requests: Jobs, error: InferdError | None = None) -> None:
        for job in requests:
            job.fail(error or EngineFailure())

    def _apart(self, requests: Jobs) -> Iterator[Jobs]:
        for job in requests:
            yield (job,)


def _reason_to_drop(job: Job) -> Cancelled | DeadlinePassed:
    if job.cancelled:
        return Cancelled("the caller went away while the request waited")
    return DeadlinePassed("the deadline passed while the request waited for its batch")
