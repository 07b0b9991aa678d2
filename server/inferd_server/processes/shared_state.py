"""State of the server as a whole, kept by the supervisor: questions, regions, totals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future

from prometheus_client import CollectorRegistry

from inferd_server.errors import AlreadyExists, InferdError, InvalidInput, ShuttingDown
from inferd_server.models.entries import State
from inferd_server.monitoring.collector import SnapshotCollector
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.snapshot import MetricsSnapshot, merge, without_gauges
from inferd_server.monitoring.statistics import Snapshot
from inferd_server.monitoring.statistics import merge as merge_statistics
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.children import Children
from inferd_server.processes.holders import Holders
from inferd_server.processes.messages import Measured, NoRegion, NoRegions, RegisterRegion
from inferd_server.processes.spawn import REPLICA, Child

ANSWER_S = 5.0
"""Seconds that a process gets to do what takes milliseconds."""


class SharedState:
    """Answers questions that concern several processes. Any thread may call; both methods block."""

    def __init__(
        self,
        children: Children,
        regions: Registry,
        logs: LogControl,
        totals: Totals,
        holders: Holders,
    ) -> None:
        self._children = children
        self._regions = regions
        self._logs = logs
        self._totals = totals
        self._holders = holders

    def answer(self, message: object) -> object:
        """Return the answer to a question.

        Raises:
            InferdError: that it led to.
        """
        endpoints = self._children.live_endpoints()
        match message:
            case messages.Load() | messages.Unload():
                self._change(message)
            case messages.RegisterRegion():
                self._regions.register(message, endpoints)
            case messages.NoRegion(name):
                self._regions.unregister(name, endpoints)
            case messages.NoRegions():
                self._regions.unregister_all(endpoints)
            case messages.LogChange():
                self._change_logs(message)
            case messages.Measurements():
                return self._totals.measured()
            case messages.Caught():
                self.catch_up()
        return None

    def catch_up(self) -> None:
        """Wait until every process that takes calls knows what it was told."""
        endpoints = self._children.live_endpoints()
        answers([child.channel.ask(messages.Caught()) for child in endpoints], ANSWER_S)

    def _change_logs(self, change: messages.LogChange) -> None:
        """Change what every process logs, or nothing."""
        before = messages.LogChange(self._logs.read())
        self._logs.change(change.changes)
        everyone = self._children.everyone()
        try:
            answers([child.channel.ask(change) for child in everyone], ANSWER_S)
        except InferdError:
            self._logs.change(before.changes)
            for child in everyone:
                child.channel.ask(before)
            raise

    def _change(self, message: messages.Load | messages.Unload) -> None:
        """Change a model wherever it is held, and let everybody know before it is answered."""
        if isinstance(message, messages.Load):
            self._holders.load(message)
        else:
            self._holders.unload(message)
        self._totals.forget(message.name)
        self.catch_up()


class SharedModels:
    """The models of all processes, as what follows a store changes them. Any thread may call."""

    def __init__(self, state: SharedState, holders: Holders) -> None:
        self._state = state
        self._holders = holders

    def load(self, name: str) -> None:
        """Load a model in every process that holds the models, or in none; blocks.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        self._state.answer(messages.Load(name))

    def unload(self, name: str) -> None:
        """Unload a model in every process; blocks.

        Raises:
            ModelNotFound: nothing of that name was loaded.
        """
        self._state.answer(messages.Unload(name))

    def ready(self) -> set[tuple[str, int]] | None:
        """Return the versions that serve; None until every process has tried all models."""
        if not self._holders.loaded:
            return None
        ready = State.READY.value
        return {(r.name, r.version) for r in self._holders.models.records if r.state == ready}


log = logging.getLogger(__name__)
"""Seconds that a process gets to open a region."""


class Registry:
    """The regions by name. Any thread may call any method; one change at a time."""

    def __init__(self) -> None:
        self._regions: dict[str, RegisterRegion] = {}
        self._lock = threading.Lock()

    def register(self, region: RegisterRegion, endpoints: Sequence[Child]) -> None:
        """Let every process open a region; all of them, or none.

        Raises:
            AlreadyExists: the name is taken.
            InvalidInput: it has no name, there is no such object, or it is smaller than that.
            ShuttingDown: none is there to open it.
        """
        if not region.name:
            raise InvalidInput("a shared memory region needs a name")
        with self._lock:
            if region.name in self._regions:
                raise AlreadyExists(f"shared memory region {region.name!r} is registered already")
            try:
                opened = answers([child.channel.ask(region) for child in endpoints], ANSWER_S)
            except InferdError:
                self._forget(NoRegion(region.name), endpoints)
                raise
            if not opened:
                raise ShuttingDown("no process answers; try again")
            self._regions[region.name] = region

    def unregister(self, name: str, endpoints: Sequence[Child]) -> None:
        """Let every process forget a region."""
        with self._lock:
            self._regions.pop(name, None)
            self._forget(NoRegion(name), endpoints)

    def unregister_all(self, endpoints: Sequence[Child]) -> None:
        """Let every process forget all regions."""
        with self._lock:
            self._regions.clear()
            self._forget(NoRegions(), endpoints)

    def tell(self, child: Child) -> None:
        """Let a new process know all of them."""
        with self._lock:
            for region in self._regions.values():
                child.channel.tell(region)

    def _forget(self, message: NoRegion | NoRegions, endpoints: Sequence[Child]) -> None:
        answers([child.channel.ask(message) for child in endpoints], ANSWER_S)


Version = tuple[str, int]
"""Name and version of a model."""
PATIENCE_S = 1.0
"""A process that does not answer is counted as it was when it did."""


class Totals:
    """Asks every process when somebody wants to know. Any thread may call any method."""

    def __init__(
        self, everyone: Callable[[], Sequence[Child]], own: Callable[[], MetricsSnapshot]
    ) -> None:
        """Begin at zero.

        Args:
            everyone: returns the processes that live.
            own: returns what this process says of the server.
        """
        self._everyone = everyone
        self._own = own
        self._latest: dict[Child, Measured] = {}
        # Of those that still owe an answer: they are stopped, most likely, and not waited for.
        self._owed: dict[Child, Future[Measured]] = {}
        self._ended = MetricsSnapshot()
        self._ended_statistics: dict[Version, Snapshot] = {}
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(SnapshotCollector(self.metrics))

    def metrics(self) -> MetricsSnapshot:
        """Return the metrics of the server."""
        latest, own = self._ask(), self._own()
        with self._lock:
            return merge([own, self._ended, *(one.metrics for one in latest)])

    def measured(self) -> Measured:
        """Return what all processes counted."""
        latest = self._ask()
        with self._lock:
            statistics = {version: [one] for version, one in self._ended_statistics.items()}
        for one in latest:
            for version, found in one.statistics.items():
                statistics.setdefault(version, []).append(found)
        return Measured(
            merge(one.metrics for one in latest),
            {version: merge_statistics(found) for version, found in statistics.items()},
        )

    def ended(self, child: Child) -> None:
        """Keep what a process counted that is gone, as far as it was ever asked."""
        with self._lock:
            last = self._latest.pop(child, None)
            self._owed.pop(child, None)
            if last is None:
                return
            self._ended = merge([self._ended, without_gauges(last.metrics)])
            if child.role == REPLICA:
                # Its models go on in others; those of a worker begin anew with the next one.
                self._keep(last.statistics)

    def forget(self, model: str) -> None:
        """Forget what dead processes counted for a model: it was loaded anew, or unloaded."""
        with self._lock:
            for version in [each for each in self._ended_statistics if each[0] == model]:
                del self._ended_statistics[version]

    def _keep(self, statistics: Mapping[Version, Snapshot]) -> None:
        for version, found in statistics.items():
            before = self._ended_statistics.get(version, Snapshot())
            self._ended_statistics[version] = merge_statistics([before, found])

    def _ask(self) -> list[Measured]:
        children = self._everyone()
        with self._lock:
            self._settle()
            asked = [child for child in children if child not in self._owed]
        futures = [child.channel.ask(messages.Measurements()) for child in asked]
        answers(futures, PATIENCE_S)
        with self._lock:
            self._owed |= zip(asked, futures, strict=True)
            self._settle()
            return [self._latest[child] for child in children if child in self._latest]

    def _settle(self) -> None:
        """Take in the answers that came; with the lock held."""
        for child, future in list(self._owed.items()):
            if future.done():
                del self._owed[child]
                if future.exception() is None:
                    self._latest[child] = future.result()
