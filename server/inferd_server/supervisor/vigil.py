"""Pings for processes, trials for models: what answers. Told and asked by the supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd_server.control import messages
from inferd_server.front.sick import SickModels
from inferd_server.settings.model import SurvivalSettings
from inferd_server.supervisor.spawn import Child

TICK_S = 0.25
"""Seconds between two looks."""
MISSED = 3
"""Looks in a row without an answer after which a process is held to be silent."""


@dataclass(slots=True)
class Pulse:
    """What is known of one process."""

    known: bool = False
    """It has answered once: before, it starts."""
    asked: float | None = None
    """When it was pinged, if it has not answered yet."""
    missed: int = 0


class Vigil:
    """Looks after the processes, and has the models looked after. Any thread may call."""

    def __init__(
        self,
        survival: SurvivalSettings,
        clock: Callable[[], float],
        fronts: Callable[[], Sequence[Child]],
    ) -> None:
        """Begin.

        Args:
            survival: how often models are tried, and what is taken for dead.
            clock: monotonic seconds.
            fronts: returns those that live.
        """
        self._survival = survival
        self._clock = clock
        self._fronts = fronts
        self._pulses: dict[Child, Pulse] = {}
        self.models = SickModels(clock)
        """What trials said."""
        self._tried = clock()
        self._turn = 0
        self._lock = threading.Lock()

    def look(self, everyone: Sequence[Child]) -> None:
        """Ping every process, and let a front try the models when it is time for that."""
        now = self._clock()
        with self._lock:
            self._pulses = {child: self._pulses.get(child) or Pulse() for child in everyone}
            asked = [child for child, pulse in self._pulses.items() if _ping(pulse, now)]
        for child in asked:
            child.channel.tell(messages.Ping())
        self._try(now)

    def heard(self, child: Child) -> None:
        """Note that a process answered a ping."""
        with self._lock:
            pulse = self._pulses.get(child)
            if pulse is not None:
                pulse.known, pulse.asked, pulse.missed = True, None, 0

    def silent(self, child: Child | None) -> bool:
        """True while a process answers nothing."""
        with self._lock:
            pulse = None if child is None else self._pulses.get(child)
            return pulse is not None and pulse.known and pulse.missed >= MISSED

    def hung(self, worker: Child | None) -> list[tuple[Child, str]]:
        """Return the processes that have not answered for too long, and why that is said."""
        limit = self._survival.hang_timeout_s
        if not limit:
            return []
        now = self._clock()
        with self._lock:
            found = [
                (child, f"it answers no pings for {now - pulse.asked:.0f} s")
                for child, pulse in self._pulses.items()
                if pulse.known and pulse.asked is not None and now - pulse.asked >= limit
            ]
        if worker is not None:
            for model, seconds in self.models.late().items():
                if seconds >= limit:
                    found.append((worker, f"model {model!r} answers nobody for {seconds:.0f} s"))
        return found

    def _try(self, now: float) -> None:
        interval = self._survival.canary_interval_s
        fronts = self._fronts()
        if not interval or now - self._tried < interval or not fronts:
            return
        self._tried = now
        self._turn += 1
        # One after the other: the way of each is tried, and none is asked often.
        fronts[self._turn % len(fronts)].channel.tell(messages.TryModels(interval))


def _ping(pulse: Pulse, now: float) -> bool:
    """Count a look at a process, and tell whether it has to be pinged: it has answered."""
    if pulse.asked is not None:
        pulse.missed += 1
        return False
    pulse.asked = now
    return True
