"""Looks at the metrics every so often, and tells the sinks what began and what ended."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.metrics_core import Metric

from inferd_server.monitoring.alerts.expressions import Reading, read
from inferd_server.monitoring.alerts.firing import AlertEvent, AlertState, step
from inferd_server.monitoring.alerts.rules import LONGER, AlertRule, rules_of
from inferd_server.monitoring.alerts.sinks import AlertSink, Pace, sinks_of
from inferd_server.settings.alerts import AlertSettings

log = logging.getLogger(__name__)
STOP_S = 2.0
"""What all sinks get at the end for what waits."""


MOST_TOLD = 30
"""Of what happened that is remembered."""


@dataclass(frozen=True, slots=True)
class ToldAlert:
    """An alert that began or ended."""

    at: float
    """Seconds since the epoch."""
    alert: str
    resolved: bool
    text: str


class AlertWatch:
    """The rules of one server, at work. Nothing runs where there are no sinks."""

    def __init__(
        self,
        rules: Sequence[AlertRule],
        sinks: Sequence[AlertSink],
        collect: Callable[[frozenset[str]], Iterable[Metric]],
        interval: float,
        clock: Callable[[], float],
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Prepare.

        Args:
            rules: to look after.
            sinks: who is told.
            collect: returns the metrics of which samples have one of these names; may take long.
            interval: seconds between two looks.
            clock: monotonic seconds.
            wall: seconds since the epoch.
        """
        self._rules = rules
        self._sinks = sinks
        self._collect = collect
        self._interval = interval
        self._clock = clock
        self._wall = wall
        self._names = frozenset().union(*(rule.expression.names for rule in rules))
        self._history: list[Reading] = []
        self._state = AlertState()
        self._told: deque[ToldAlert] = deque(maxlen=MOST_TOLD)
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin to look, if there is anybody to tell."""
        if self._sinks:
            for sink in self._sinks:
                sink.start()
            threading.Thread(target=self._live, name="alerts", daemon=True).start()

    def stop(self) -> None:
        """Look no more, and let the sinks send what waits."""
        if not self._ended.is_set():
            self._ended.set()
            end = time.monotonic() + STOP_S
            for sink in self._sinks:
                sink.stop(end)
            for sink in self._sinks:
                sink.join()

    def gauges(self) -> Mapping[str, float]:
        """Return what /metrics tells of alerts; nothing where there are no sinks."""
        if not self._sinks:
            return {}
        unsent = sum(sink.unsent for sink in self._sinks)
        return {
            "inferd_alerts_firing": len(self._state.firing),
            "inferd_alerts_unsent": float(unsent),
        }

    def told(self) -> list[ToldAlert] | None:
        """Return what happened lately, the oldest first; None where there are no sinks."""
        return list(self._told) if self._sinks else None

    def look(self) -> list[AlertEvent]:
        """Look once, and return what began and ended."""
        now = self._clock()
        self._history = [old for old in self._history if old.at >= now - LONGER]
        self._history.append(read(self._collect, self._names, now))
        values = {rule.name: rule.expression.values(self._history) for rule in self._rules}
        self._state, events = step(self._state, self._rules, values, now)
        for event in events:
            level = logging.INFO if event.resolved else logging.WARNING
            what = "an alert is over" if event.resolved else "an alert fires"
            log.log(level, what, extra={"alert": event.key[0], "about": event.text})
            told = ToldAlert(self._wall(), event.key[0], event.resolved, event.text)
            self._told.append(told)
        for sink in self._sinks if events else ():
            sink.put(events)
        return events

    def _live(self) -> None:
        while not self._ended.wait(self._interval):
            try:
                self.look()
            except Exception:
                log.exception("alerts could not be looked at")


def make_watch(
    settings: AlertSettings,
    collect: Callable[[frozenset[str]], Iterable[Metric]],
    clock: Callable[[], float],
) -> AlertWatch:
    """Return what looks after the rules as the settings say.

    Raises:
        SettingsError: the file of sinks cannot be used.
    """
    path = settings.alert_urls_file
    sinks = sinks_of(Path(path), Pace(settings.alert_pause_s)) if path else []
    return AlertWatch(rules_of(settings), sinks, collect, settings.alert_interval_s, clock)
