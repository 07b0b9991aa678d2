"""What a process asks on behalf of its caller, or the worker of the fronts, and its answer."""

from __future__ import annotations

from inferd_server.control import messages
from inferd_server.control.channel import answers
from inferd_server.errors import InferdError
from inferd_server.monitoring.logs import LogControl
from inferd_server.supervisor.fleet import Fleet
from inferd_server.supervisor.holders import Holders
from inferd_server.supervisor.regions import Registry
from inferd_server.supervisor.totals import Totals

ANSWER_S = 5.0
"""Seconds that a process gets to do what takes milliseconds."""


class Relay:
    """Answers questions that concern several processes. Any thread may call; both methods block."""

    def __init__(
        self,
        fleet: Fleet,
        regions: Registry,
        logs: LogControl,
        totals: Totals,
        holders: Holders,
    ) -> None:
        self._fleet = fleet
        self._regions = regions
        self._logs = logs
        self._totals = totals
        self._holders = holders

    def answer(self, message: object) -> object:
        """Return the answer to a question.

        Raises:
            InferdError: that it led to.
        """
        endpoints = self._fleet.live_endpoints()
        match message:
            case messages.Load() | messages.Unload():
                self._change(message)
            case messages.Region():
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
        endpoints = self._fleet.live_endpoints()
        answers([child.channel.ask(messages.Caught()) for child in endpoints], ANSWER_S)

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

    def _change(self, message: messages.Load | messages.Unload) -> None:
        """Change a model wherever it is held, and let everybody know before it is answered."""
        if isinstance(message, messages.Load):
            self._holders.load(message)
        else:
            self._holders.unload(message)
        self._totals.forget(message.name)
        self.catch_up()
