"""The sinks of alerts: each on a thread of its own, as often as it takes."""

from __future__ import annotations

import logging
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from inferd_server.errors import SettingsError
from inferd_server.monitoring.alerts.firing import AlertEvent

log = logging.getLogger(__name__)
Notify: TypeAlias = Callable[[str, str], bool]
"""Sends a title and a text; False, or any exception, if they did not arrive."""
MOST_WAITING = 1000
"""Events that wait for one sink; beyond, the oldest go."""
MOST_AT_ONCE = 50
"""Events of one message."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds between messages."""

    between: float = 10.0
    """Two that arrive: what happens meanwhile goes into one."""
    first: float = 1.0
    """One that does not, and its repetition; each further pause is twice as long."""
    longest: float = 300.0

    def after(self, failures: int) -> float:
        """Return the pause after so many failures in a row; 0: it arrived."""
        if not failures:
            return self.between
        return float(min(self.longest, self.first * 2 ** min(failures - 1, 30)))


class AlertSink:
    """Sends events to one place, in their order, until they arrive. Any thread may call."""

    def __init__(self, name: str, notify: Notify, pace: Pace) -> None:
        """Prepare.

        Args:
            name: what the log calls it.
            notify: called on a thread of its own, so it may take long.
            pace: of messages.
        """
        self._name = name
        self._notify = notify
        self._pace = pace
        self._waiting: deque[AlertEvent] = deque()
        self._stop_at: float | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._live, name=f"alerts {name}", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    @property
    def unsent(self) -> int:
        """Events that did not arrive yet."""
        return len(self._waiting)

    def put(self, events: Sequence[AlertEvent]) -> None:
        """Send events soon; never waits."""
        with self._changed:
            self._waiting.extend(events)
            dropped = max(0, len(self._waiting) - MOST_WAITING)
            for _ in range(dropped):
                self._waiting.popleft()
            self._changed.notify_all()
        if dropped:
            about = {"sink": self._name, "dropped": dropped}
            log.error("alerts are lost: too many wait for a sink", extra=about)

    def stop(self, at: float) -> None:
        """Send what waits, and nothing more once the monotonic clock says `at`."""
        with self._changed:
            self._stop_at = at
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until it has stopped, no longer than it may take."""
        if self._thread.is_alive() and self._stop_at is not None:
            self._thread.join(max(0.0, self._stop_at - time.monotonic()))

    def _live(self) -> None:
        failures = 0
        while events := self._next():
            failures = 0 if self._send(events, failures) else failures + 1
            with self._changed:
                if not failures:
                    for event in events:
                        # Those that were dropped meanwhile are gone.
                        if self._waiting and self._waiting[0] is event:
                            self._waiting.popleft()
                self._pause(self._pace.after(failures), urgent=not failures)

    def _next(self) -> list[AlertEvent]:
        """Wait for events; none once it is stopped and all arrived, or its time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stop_at is not None)
            if self._stop_at is not None and time.monotonic() >= self._stop_at:
                return []
            return list(self._waiting)[:MOST_AT_ONCE]

    def _pause(self, seconds: float, *, urgent: bool) -> None:
        """Wait before the next message; not for the usual time once it is to stop."""
        before = self._stop_at
        if before is None or not urgent:
            self._changed.wait_for(lambda: self._stop_at is not before, seconds)

    def _send(self, events: Sequence[AlertEvent], failures: int) -> bool:
        try:
            arrived = self._notify(title_of(events), "\n".join(map(line_of, events)))
            why = "" if arrived else "it was refused, or nobody answered"
        except Exception as error:
            arrived, why = False, f"{type(error).__name__}: {error}"
        about = {"sink": self._name, "events": len(events)}
        if not arrived and not failures:
            log.warning("alerts do not arrive, and are sent again", extra={**about, "why": why})
        if arrived and failures:
            log.info("alerts arrive again", extra=about)
        return arrived


def title_of(events: Sequence[AlertEvent]) -> str:
    """Return the title of a message."""
    over = sum(event.resolved for event in events)
    counts = ((len(events) - over, "firing"), (over, "resolved"))
    return "inferd: " + ", ".join(f"{count} {what}" for count, what in counts if count)


def line_of(event: AlertEvent) -> str:
    """Return what a message says of one event."""
    return f"{'RESOLVED' if event.resolved else 'FIRING'} {event.text}"


def sinks_of(path: Path, pace: Pace) -> list[AlertSink]:
    """Return a sink for each Apprise URL of a file, one a line; # begins a comment.

    Args:
        path: of the file.
        pace: of the messages of each.

    Raises:
        SettingsError: the file cannot be read, or a line is no such URL, or the package is missing.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"alert_urls_file: {path} cannot be read: {error}") from error
    try:
        from apprise import Apprise
    except ModuleNotFoundError as error:
        raise SettingsError(
            "alert_urls_file: apprise is missing: install inferd[monitoring]"
        ) from error
    # Its own words repeat ours, and may have parts of URLs in them.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    found = []
    for number, line in enumerate(lines, 1):
        url = line.partition(" #")[0].strip()
        if url and not url.startswith("#"):
            sender = Apprise()
            with warnings.catch_warnings():
                # All its plugins are loaded now, and some use what Python is about to drop.
                warnings.simplefilter("ignore", DeprecationWarning)
                known = sender.add(url)
            if not known:
                # It is not shown, because it may hold a password.
                text = f"alert_urls_file: line {number} of {path} is no Apprise URL"
                raise SettingsError(text)
            found.append(AlertSink(f"line {number}", notifier(sender), pace))
    return found


def notifier(sender: Any) -> Notify:
    """Return what sends by an Apprise."""

    def notify(title: str, body: str) -> bool:
        return bool(sender.notify(body=body, title=title))

    return notify
