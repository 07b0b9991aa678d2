"""Which models fail their trials, as of the last verdict on each."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping

from inferd_server.front.verdict import Outcome, Verdict

log = logging.getLogger(__name__)
WELL = {Outcome.OK, Outcome.SERVED, Outcome.UNFIT}


class SickModels:
    """Verdicts on model versions. Any thread may call any method."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Begin with none; `clock` is monotonic seconds."""
        self._clock = clock
        self._why: dict[tuple[str, int], str] = {}
        self._late: dict[tuple[str, int], float] = {}
        self._lock = threading.Lock()

    def judged(self, verdict: Verdict) -> bool:
        """Note the latest verdict on a version; True if that changes what is known."""
        if verdict.outcome is Outcome.BUSY:
            return False
        version = verdict.model, verdict.version
        with self._lock:
            before = self._why.get(version)
            known = before is not None
            if verdict.outcome in WELL:
                self._why.pop(version, None)
            else:
                self._why[version] = verdict.why
            if verdict.outcome is Outcome.LATE:
                self._late.setdefault(version, self._clock())
            else:
                self._late.pop(version, None)
        if verdict.outcome not in WELL and not known:
            where = {"model": verdict.model, "version": verdict.version}
            log.error("a trial failed", extra={**where, "why": verdict.why})
        with self._lock:
            return self._why.get(version) != before

    def keep(self, loaded: Collection[tuple[str, int]]) -> None:
        """Forget what was said of versions that are not loaded any more."""
        with self._lock:
            for said in (self._why, self._late):
                for version in said.keys() - loaded:
                    del said[version]

    def why(self) -> Mapping[tuple[str, int], str]:
        """Return the versions that fail their trials, and why."""
        with self._lock:
            return dict(self._why)

    def late(self) -> Mapping[str, float]:
        """Return the models that answer nobody, and for how many seconds."""
        now = self._clock()
        with self._lock:
            return {model: now - since for (model, _), since in self._late.items()}
