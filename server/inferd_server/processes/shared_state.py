"""State of the server as a whole, kept by the supervisor: questions, regions, totals."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from inferd_server.errors import AlreadyExists, InferdError, InvalidInput, ShuttingDown
from inferd_server.models.entries import State
from inferd_server.monitoring.drift.judge import DriftJudge
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.children import ANSWER_S, Children
from inferd_server.processes.holders import Holders
from inferd_server.processes.messages import NoRegion, NoRegions, RegisterRegion
from inferd_server.processes.spawn import Child
from inferd_server.processes.totals import Totals


class SharedState:
    """Answers questions that concern several processes. Any thread may call; both methods block."""

    def __init__(
        self,
        children: Children,
        regions: Registry,
        logs: LogControl,
        totals: Totals,
        holders: Holders,
        judge: DriftJudge,
    ) -> None:
        self._children = children
        self._regions = regions
        self._logs = logs
        self._totals = totals
        self._holders = holders
        self._judge = judge

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
            case messages.ShowDrift():
                return messages.Drifted(self._judge.look())
            case messages.Caught():
                self.catch_up()
        return None

    def catch_up(self) -> None:
        """Wait until every process that takes calls knows what it was told."""
        self._children.catch_up()

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
