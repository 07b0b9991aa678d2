"""The models of the worker process, as a front knows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from inferd_server.control.messages import ModelRecord
from inferd_server.front.dispatch import Dispatch
from inferd_server.link.sending import Target
from inferd_server.monitoring.statistics import Statistics
from inferd_server.repository.entries import Entries, Entry, State
from inferd_server.repository.handle import Description, Handle
from inferd_server.repository.last_request import LastRequest
from inferd_server.repository.line import Refusable
from inferd_server.scheduler.forecast import Forecast
from inferd_server.scheduler.job import Job
from inferd_server.scheduler.slot import Arena


class RemoteLine:
    """The line of one model version in the worker."""

    def __init__(self, dispatch: Dispatch, description: Description) -> None:
        self.name = description.name
        self.version = description.version
        self.signature = description.signature
        self.number = description.number
        self.batched = description.batched
        self.closed = False
        self.outputs: Sequence[tuple[str, np.dtype[Any]]] = [
            (tensor.name, tensor.dtype) for tensor in description.signature.outputs
        ]
        self._dispatch = dispatch

    def submit(self, request: Job) -> bool:
        """Send a request; False once the line is closed."""
        return self._dispatch.submit(request, self)

    def withdraw(self, request: Job) -> bool:
        """Tell the worker that nobody waits for a request; its answer comes all the same.

        True for a request that waits for the next worker: the caller has to answer it.
        """
        return self._dispatch.withdraw(request)

    def takes_as(self, other: RemoteLine) -> bool:
        """True if requests of another line are requests of this one."""
        return (self.signature, self.batched) == (other.signature, other.batched)

    def take(self) -> None:
        """Return None: nothing runs here."""

    def take_full(self) -> None:
        """Return None: nothing runs here."""

    def limit(self, max_rows: int, max_delay: float) -> None:
        """Do nothing: nothing runs here."""

    def close(self) -> None:
        """Send no more; what was sent is answered."""
        self.closed = True

    def drain(self) -> Sequence[Refusable]:
        """Close; what was sent waits in the worker."""
        self.close()
        return ()


class Catalog:
    """Every model version, and handles whose requests go over the link."""

    def __init__(self, dispatch: Dispatch, changed: Callable[[], None]) -> None:
        """Begin with none.

        Args:
            dispatch: to the worker.
            changed: called after anything changed.
        """
        self._dispatch = dispatch
        self._entries = Entries(changed)

    def update(self, records: Iterable[ModelRecord]) -> None:
        """Know what the worker tells; versions that it replaced take no more requests."""
        known = {h.number: h for entry in self.entries() if (h := entry.handle) is not None}
        entries = [self._entry(record, known) for record in records]
        self._entries.set_all(entries)
        kept = {entry.handle.number for entry in entries if entry.handle is not None}
        for number, handle in known.items():
            if number not in kept:
                handle.queue.close()
                handle.arena.close()

    def lose(self, reason: str) -> None:
        """Know that the worker is gone, and with it every handle."""
        self.update(
            ModelRecord(entry.name, entry.version, State.UNAVAILABLE.value, reason, None)
            for entry in self.entries()
        )

    def successor(self, line: Target) -> Target | None:
        """Return the line that takes the same requests as one of a dead worker; None: not yet."""
        assert isinstance(line, RemoteLine)
        for entry in self.entries():
            if (entry.name, entry.version) == (line.name, line.version) and entry.handle:
                found = entry.handle.queue
                assert isinstance(found, RemoteLine)
                return found if entry.state is State.READY and found.takes_as(line) else None
        return None

    def resolve(self, name: str, version: str) -> Handle:
        """Return the handle for a request; "" takes the highest version that is ready.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: it has no such version.
            ModelNotReady: it is known and not serving.
        """
        return self._entries.resolve(name, version)

    def entries(self) -> list[Entry]:
        """Return every version of every model, sorted."""
        return self._entries.all()

    def _entry(self, record: ModelRecord, known: dict[int, Handle]) -> Entry:
        handle = None
        if record.description is not None:
            handle = known.get(record.description.number) or self._handle(record.description)
        return Entry(record.name, record.version, State(record.state), record.reason, handle)

    def _handle(self, about: Description) -> Handle:
        bounds = about.bounds
        return Handle(
            **{name: getattr(about, name) for name in Description.__dataclass_fields__},
            queue=RemoteLine(self._dispatch, about),
            arena=Arena(
                bounds.max_queue_rows,
                # Together they share one memory, of which no model's lanes may take all.
                min(bounds.max_queue_bytes, self._dispatch.inputs.size),
                memory=self._dispatch.inputs,
                level_rows=bounds.level_rows,
            ),
            statistics=Statistics(),
            forecast=Forecast(bounds.limits.max_rows, about.config.instances),
            last_request=LastRequest() if about.warm_reason else None,
        )
