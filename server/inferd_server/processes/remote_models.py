"""The models of the worker processes, as a front knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inferd_server.batching.forecast import Forecast
from inferd_server.batching.job import Job
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.slots import Arena
from inferd_server.errors import HandleRetired, InferdError, ModelNotReady
from inferd_server.models.entries import Entries, Labels, ModelEntry, State
from inferd_server.models.last_request import LastRequest
from inferd_server.models.version import Description, Handle
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.processes.link.pending import LinkTarget
from inferd_server.processes.link_share import LinkShare
from inferd_server.processes.messages import ModelRecord
from inferd_server.processes.retry import RetryingLink


class WorkerTarget:
    """A version in one worker: what is sent there, and whether it takes more."""

    def __init__(self, line: RemoteLine, worker: int, number: int) -> None:
        self.line = line
        self.worker = worker
        self.number = number
        """Of the version, there."""
        self.closed = False
        self.name = line.name
        self.version = line.version
        self.batched = line.batched
        self.outputs = line.outputs

    @property
    def returning(self) -> bool:
        """As the line's."""
        return self.line.returning

    def left(self, request: Job) -> None:
        """Note that the worker answered a request of a stream."""
        self.line.left(request)


class RemoteLine:
    """The line of one model version, in all workers that serve it."""

    def __init__(self, retrying: RetryingLink, description: Description) -> None:
        self.name = description.name
        self.version = description.version
        self.signature = description.signature
        self.batched = description.batched
        self.closed = False
        self.returning = False
        """True once its last worker died, until the next one serves the model or cannot."""
        self.outputs: Sequence[tuple[str, np.dtype[Any]]] = [
            (tensor.name, tensor.dtype) for tensor in description.signature.outputs
        ]
        self.targets: Sequence[WorkerTarget] = ()
        self._retrying = retrying
        self._share = LinkShare(self._send, description.bounds.limits.max_rows)

    @property
    def number(self) -> int:
        """Of its first worker; 0: there is none."""
        return self.targets[0].number if self.targets else 0

    @property
    def numbers(self) -> Mapping[int, int]:
        """What its workers call it, by their index."""
        return {target.worker: target.number for target in self.targets}

    @property
    def waiting_requests(self) -> int:
        """Requests of streams that are not sent yet; all others wait in a worker."""
        return self._share.behind

    @property
    def rows(self) -> int:
        """Rows that wait in the worker now, of all fronts."""
        return self._retrying.waiting_rows(self)

    def submit(self, request: Job) -> bool:
        """Send a request; False once the line is closed."""
        if request.stream is None:
            return self._retrying.submit(request, self)
        return self._share.submit(request)

    def withdraw(self, request: Job) -> bool:
        """Tell the worker that nobody waits for a request; its answer comes all the same.

        True for a request that is not sent yet: the caller has to answer it.
        """
        if request.stream is not None and self._share.withdraw(request):
            return True
        return self._retrying.withdraw(request)

    def left(self, request: Job) -> None:
        """Note that a request of a stream was answered."""
        if request.stream is not None:
            self._share.left(request)

    def takes_as(self, other: RemoteLine) -> bool:
        """True if requests of another line are requests of this one."""
        return (self.signature, self.batched) == (other.signature, other.batched)

    def serve(self, numbers: Mapping[int, int]) -> None:
        """Send to these workers from now on, by what they call the version, and to no others."""
        before = {(target.worker, target.number): target for target in self.targets}
        self.targets = tuple(
            before.pop(pair) if pair in before else WorkerTarget(self, *pair)
            for pair in sorted(numbers.items())
        )
        for target in before.values():
            target.closed = True

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Do nothing: nothing runs here."""

    def close(self) -> None:
        """Send no more; what was sent is answered, and what was not is admitted anew."""
        self.closed, self.returning = True, False
        self.serve({})
        for request in self._share.close():
            request.fail(HandleRetired("the model was replaced before the request ran"))

    def lose(self, worker: int) -> bool:
        """Send no more to a worker that is gone; True if others serve on.

        What comes waits for the next one, if there is none.
        """
        left = {index: number for index, number in self.numbers.items() if index != worker}
        # First, so that who finds no target waits.
        self.closed = self.returning = not left
        self.serve(left)
        if left:
            return True
        for request in self._share.close():
            # It waits with the others.
            self.submit(request)
        return False

    def drain(self) -> Sequence[Job]:
        """Close; what was sent waits in the worker."""
        self.close()
        return ()

    def _send(self, request: Job) -> bool:
        return self._retrying.submit(request, self)


class RemoteModels:
    """Every model version, and handles whose requests go over the links."""

    def __init__(
        self, retrying: RetryingLink, changed: Callable[[], None], metrics: Metrics
    ) -> None:
        """Begin with none.

        Args:
            retrying: to the workers.
            changed: called after anything changed.
            metrics: of this process.
        """
        self._retrying = retrying
        self._metrics = metrics
        self._changed = changed
        self._lanes = LanePool(retrying.inputs, retrying.inputs.size)
        self._entries = Entries(lambda: None)
        # True once every worker has tried to load everything.
        self._settled = False

    def update(
        self, records: Iterable[ModelRecord], settled: bool = True, labels: Labels | None = None
    ) -> None:
        """Take what the workers have; versions that were replaced take no more requests.

        Args:
            records: every version that is there, or is being loaded.
            settled: all tried to load everything; before, what they say nothing of may come.
            labels: of the models; None: as they were.
        """
        known = {
            pair: entry.handle
            for entry in self.entries()
            if entry.handle is not None and not entry.returning
            for pair in line_of(entry.handle).numbers.items()
        }
        returning = {(e.name, e.version): e for e in self.entries() if e.returning}
        entries = []
        for record in records:
            before = returning.pop((record.name, record.version), None)
            entries.append(self._entry(record, known, before))
        self._settled = settled
        told = labels if settled or labels else None
        self._know(entries if settled else [*entries, *returning.values()], told)

    def lose(self, reason: str, worker: int = 0) -> None:
        """Note that a worker is gone; what it alone served, the next one is expected to."""
        self._settled = False
        self._know([self._lost(entry, reason, worker) for entry in self.entries()])

    def successor(self, line: LinkTarget) -> RemoteLine | InferdError | None:
        """Return the line that takes the same requests as one of a dead worker.

        Returns:
            None if there is none yet, an error if there will be none.
        """
        assert isinstance(line, RemoteLine)
        version = line.name, line.version
        entry = next((e for e in self.entries() if (e.name, e.version) == version), None)
        if entry is None:
            return HandleRetired("the model is not there any more") if self._settled else None
        if entry.returning or entry.state is State.LOADING:
            return None
        if entry.handle is None or not entry.takes:
            return ModelNotReady(f"model {line.name!r} is {entry.state.value}: {entry.reason}")
        found = line_of(entry.handle)
        # Requests of another signature are checked anew.
        return found if found.takes_as(line) else HandleRetired("the model was replaced")

    def choose(self, name: str, version: str) -> ModelEntry:
        """Return the version that a request would be sent to, serving or not.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
        """
        return self._entries.choose(name, version)

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that is ready.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving.
        """
        return self._entries.resolve(name, version)

    def entries(self) -> list[ModelEntry]:
        """Return every version of every model, sorted."""
        return self._entries.all()

    def release_idle(self) -> None:
        """Give the memory of lanes without a request back to the system."""
        self._lanes.release_idle()

    def gauges(self) -> Mapping[str, float]:
        """Return what lanes hold of the memory for inputs."""
        return self._lanes.gauges()

    def _know(self, entries: list[ModelEntry], labels: Labels | None = None) -> None:
        """Keep these entries alone; the lines of all others take nothing more."""
        before = [entry.handle for entry in self.entries() if entry.handle is not None]
        self._entries.set_all(entries, labels)
        known = {id(entry.handle) for entry in entries}
        for handle in before:
            if id(handle) not in known:
                handle.queue.close()
                handle.arena.close()
        # The last, so that what came to wait for one of them until now is looked at.
        self._changed()

    def _entry(
        self,
        record: ModelRecord,
        known: Mapping[tuple[int, int], Handle],
        before: ModelEntry | None,
    ) -> ModelEntry:
        """Return what is known of a version by a record of it.

        Args:
            record: of the workers that live.
            known: handles of versions that serve, by worker and what it calls them.
            before: the version, if a dead worker served it.
        """
        state, about = State(record.state), record.description
        if about is None and before is not None:
            if record.returning:
                return replace(before, state=state, reason=record.reason)
            if state is State.LOADING:
                return replace(before, state=state)
        handle = None
        if about is not None:
            handle = kept(record.workers, known) or self._handle(about)
            line_of(handle).serve(record.workers)
            handle.number = line_of(handle).number
        return ModelEntry(record.name, record.version, state, record.reason, handle)

    def _lost(self, entry: ModelEntry, reason: str, worker: int) -> ModelEntry:
        """Return what is known of a version after a worker died."""
        handle = entry.handle
        if handle is None or worker not in line_of(handle).numbers:
            return entry
        waits = entry.takes and self._retrying.holds
        if line_of(handle).lose(worker) and handle.config.sequence is None:
            return entry
        if not waits or handle.config.sequence is not None:
            # What its sequences had reached is lost.
            handle = None
        else:
            # The next worker gives the number to another one.
            handle.number = 0
        gone = replace(entry, state=State.UNAVAILABLE, reason=reason, handle=handle)
        return replace(gone, returning=entry.takes)

    def _handle(self, about: Description) -> Handle:
        bounds = about.bounds
        return Handle(
            **{name: getattr(about, name) for name in Description.__dataclass_fields__},
            queue=RemoteLine(self._retrying, about),
            arena=Arena(
                bounds.max_queue_rows,
                # All models share one memory, of which no lane may take more than its part.
                min(bounds.max_queue_bytes, self._retrying.inputs.size),
                self._lanes,
                level_rows=bounds.level_rows,
                levels=bounds.levels,
            ),
            statistics=Statistics(self._metrics.of(about.name, about.version)),
            forecast=Forecast(bounds.limits, instances=about.config.instances),
            last_request=LastRequest() if about.warm_reason else None,
        )


def line_of(handle: Handle) -> RemoteLine:
    """Return the line of a handle of remote models."""
    assert isinstance(handle.queue, RemoteLine)
    return handle.queue


def kept(numbers: Mapping[int, int], known: Mapping[tuple[int, int], Handle]) -> Handle | None:
    """Return the handle of a version that goes on; None for one that is loaded anew somewhere.

    Args:
        numbers: what the workers that serve it call it, by their index.
        known: handles by worker and what it calls them.
    """
    for pair in numbers.items():
        handle = known.get(pair)
        if handle is not None:
            before = line_of(handle).numbers
            same = all(numbers.get(worker, number) == number for worker, number in before.items())
            return handle if same else None
    return None
