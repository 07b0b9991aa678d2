"""What a front asks on behalf of its caller, or the worker of the fronts, and its answer."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from inferd_server.control import messages
from inferd_server.control.channel import answers
from inferd_server.errors import InferdError, ModelNotReady
from inferd_server.monitoring.logs import LogControl
from inferd_server.repository.overrides import Override
from inferd_server.supervisor.fleet import WORKER_LOST, Fleet
from inferd_server.supervisor.regions import Registry
from inferd_server.supervisor.totals import Totals

ANSWER_S = 5.0
"""Seconds that a process gets to do what takes milliseconds."""


class Relay:
    """Answers questions that concern several processes. Any thread may call; both methods block."""

    def __init__(self, fleet: Fleet, regions: Registry, logs: LogControl, totals: Totals) -> None:
        self._fleet = fleet
        self._regions = regions
        self._logs = logs
        self._totals = totals
        self._overrides: dict[str, Override] = {}
        self._lock = threading.Lock()

    def answer(self, message: object) -> object:
        """Return the answer to a question.

        Raises:
            InferdError: that it led to.
        """
        fronts = self._fleet.live_fronts()
        match message:
            case messages.Load() | messages.Unload():
                answer = self._ask_worker(message)
                self._remember(message)
                return answer
            case messages.Region():
                self._regions.register(message, fronts)
            case messages.NoRegion(name):
                self._regions.unregister(name, fronts)
            case messages.NoRegions():
                self._regions.unregister_all(fronts)
            case messages.LogChange():
                self._change_logs(message)
            case messages.Measurements():
                return self._totals.measured()
            case messages.Caught():
                self.catch_up()
        return None

    def catch_up(self) -> None:
        """Wait until every front knows what it was told."""
        fronts = self._fleet.live_fronts()
        answers([front.channel.ask(messages.Caught()) for front in fronts], ANSWER_S)

    def _change_logs(self, change: messages.LogChange) -> None:
        """Change what every process logs, or nothing."""
        before = messages.LogChange(self._logs.read())
        self._logs.change(change.changes)
        everyone = self._fleet.everyone()
        try:
            answers([child.channel.ask(change) for child in everyone], ANSWER_S)
        except InferdError:
            self._logs.change(before.changes)
            for child in everyone:
                child.channel.ask(before)
            raise

    def overrides(self) -> Mapping[str, Override]:
        """Return what callers loaded models with: a worker that dies takes its own along."""
        with self._lock:
            return dict(self._overrides)

    def _remember(self, message: messages.Load | messages.Unload) -> None:
        with self._lock:
            self._overrides.pop(message.name, None)
            if isinstance(message, messages.Load) and message.override is not None:
                self._overrides[message.name] = message.override

    def _ask_worker(self, message: object) -> object:
        worker = self._fleet.worker
        if worker is None:
            raise ModelNotReady(WORKER_LOST)
        answer = worker.channel.ask(message).result()
        self.catch_up()
        return answer
