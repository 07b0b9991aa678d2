"""The judge of a server: ends windows over the counts of all processes, and says what drifted."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from inferd_server.monitoring.drift.reference import Reference
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.verdict import FeatureVerdict, WindowVerdict, judge
from inferd_server.monitoring.drift.windows import (
    DriftCounts,
    Key,
    OpenWindow,
    WindowBounds,
    advance,
)
from inferd_server.settings.drift import DriftSettings

log = logging.getLogger(__name__)
LOOK_S = 5.0
"""Between two looks at what was counted."""
MOST_TOLD = 8
"""Features that a line of the log names."""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What is known of the drift of a version; can be sent."""

    model: str
    version: int
    source: str
    """Where its reference comes from."""
    reference_rows: int
    level: float
    """Of a window without drift, the share that has an alarm is at most that."""
    open_rows: int
    """Of the window that is not over."""
    windows: int
    """That were judged since the start."""
    alarms: int
    """Windows with an alarm among them."""
    window: WindowVerdict | None
    """The last one that was judged."""
    reference: Reference
    counts: tuple[tuple[int, ...], ...] = ()
    """Of that window, by the bins of the reference."""


class DriftJudge:
    """Judges each window once. Any thread may call any method."""

    def __init__(
        self,
        totals: Callable[[], Mapping[Key, DriftCounts]],
        references: References,
        bounds: WindowBounds,
        level: float,
        wall: Callable[[], float],
    ) -> None:
        """Begin without any window.

        Args:
            totals: returns what all processes counted so far.
            references: of all versions.
            bounds: of windows.
            level: share of windows without drift that may have an alarm.
            wall: seconds since the epoch.
        """
        self._totals = totals
        self._references = references
        self._bounds = bounds
        self._level = level
        self._wall = wall
        self._windows: dict[Key, OpenWindow] = {}
        self._reports: dict[Key, DriftReport] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def start(self) -> None:
        """Look every so often, on a thread, until `stop`."""
        threading.Thread(target=self._live, name="drift", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._ended.set()

    def _live(self) -> None:
        while not self._ended.wait(LOOK_S):
            try:
                self.look()
            except Exception:
                log.exception("a look for drift failed")

    def look(self) -> tuple[DriftReport, ...]:
        """Take in what all processes counted so far, judge windows that are over, and report.

        A version that nobody counts for any more is forgotten.
        """
        totals = self._totals()
        with self._lock:
            for key in self._reports.keys() - totals.keys():
                del self._reports[key], self._windows[key]
            for key, total in totals.items():
                reference = self._references.find(key[2])
                if reference is not None and fits(reference, total):
                    self._advance(key, reference, total)
        return self.reports()

    def reports(self) -> tuple[DriftReport, ...]:
        """Return what the last look found, by model and version."""
        with self._lock:
            return tuple(self._reports[key] for key in sorted(self._reports))

    def _advance(self, key: Key, reference: Reference, total: DriftCounts) -> None:
        now = self._wall()
        opened = self._windows.get(key) or OpenWindow(none_of(total), now)
        window, ended = advance(opened, total, now, self._bounds)
        self._windows[key] = window
        before = self._reports.get(key)
        windows, alarms = (0, 0) if before is None else (before.windows, before.alarms)
        verdict = None if before is None else before.window
        counts = () if before is None else before.counts
        if ended is not None:
            features = judge(reference, ended.counts, self._level)
            tell(key, verdict, features)
            verdict = WindowVerdict(ended.rows, opened.began, now, features)
            windows, alarms, counts = windows + 1, alarms + verdict.alarm, ended.counts
        self._reports[key] = DriftReport(
            key[0],
            key[1],
            reference.source,
            reference.rows,
            self._level,
            total.rows - window.before.rows,
            windows,
            alarms,
            verdict,
            reference,
            counts,
        )


def judge_of(
    drift: DriftSettings, references: References, totals: Callable[[], Mapping[Key, DriftCounts]]
) -> DriftJudge:
    """Return the judge that the settings describe; arguments as `DriftJudge`'s."""
    bounds = WindowBounds(drift.drift_window_rows, drift.drift_window_s, drift.drift_least_rows)
    return DriftJudge(totals, references, bounds, drift.drift_level, time.time)


def none_of(total: DriftCounts) -> DriftCounts:
    """Return counts of zero in the same bins."""
    return DriftCounts(0, tuple((0,) * len(one) for one in total.counts))


def fits(reference: Reference, total: DriftCounts) -> bool:
    """True if counts are by the bins of a reference."""
    return [len(one.counts) for one in reference.features] == [len(one) for one in total.counts]


def tell(key: Key, before: WindowVerdict | None, features: tuple[FeatureVerdict, ...]) -> None:
    """Say in the log when drift begins and when it is over; not for each window."""
    where = {"model": key[0], "version": key[1]}
    drifted = [one.feature for one in features if one.alarm]
    was = before is not None and before.alarm
    if drifted and not was:
        named = {"features": ", ".join(drifted[:MOST_TOLD])}
        log.warning("requests are not like those of the reference", extra={**where, **named})
    elif was and not drifted:
        log.info("requests are like those of the reference again", extra=where)


def gauges_of(
    reports: Iterable[DriftReport],
) -> dict[tuple[str, str, int, str], float]:
    """Return what /metrics tells, by name, model, version and feature ("" for the version)."""
    found: dict[tuple[str, str, int, str], float] = {}
    for report in reports:
        version = report.model, report.version
        found["inferd_drift_windows_total", *version, ""] = report.windows
        found["inferd_drift_alarms_total", *version, ""] = report.alarms
        for one in () if report.window is None else report.window.features:
            found["inferd_drift_ks", *version, one.feature] = one.ks
            found["inferd_drift_psi", *version, one.feature] = one.psi
            found["inferd_drift_p_value", *version, one.feature] = one.p
            found["inferd_drift_alarm", *version, one.feature] = float(one.alarm)
    return found
