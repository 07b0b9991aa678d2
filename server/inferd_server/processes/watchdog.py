"""Pings for processes, trials for models: what answers. Told and asked by the supervisor."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from inferd_server.models.entries import State
from inferd_server.models.health_check import FailingModels, TrialVerdict
from inferd_server.models.readiness import enough_serve
from inferd_server.processes import messages
from inferd_server.processes.messages import Condition, ModelRecord
from inferd_server.processes.spawn import Child
from inferd_server.settings.model import SurvivalSettings

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


class Watchdog:
    """Looks after the processes, and has the models looked after. Any thread may call."""

    def __init__(
        self,
        survival: SurvivalSettings,
        clock: Callable[[], float],
        endpoints: Callable[[], Sequence[Child]],
        own_models: bool = False,
    ) -> None:
        """Begin.

        Args:
            survival: how often models are tried, and what is taken for dead.
            clock: monotonic seconds.
            endpoints: returns the processes that take calls and live.
            own_models: each of them has its own models, instead of all those of a worker.
        """
        self._survival = survival
        self._clock = clock
        self._endpoints = endpoints
        self._own_models = own_models
        self._pulses: dict[Child, Pulse] = {}
        # What trials said, by the process whose models they are; None: the workers.
        self._sick: dict[Child | None, FailingModels] = {None: FailingModels(clock)}
        self._tried = clock()
        self._turn = 0
        self._lock = threading.Lock()

    def look(self, everyone: Sequence[Child]) -> None:
        """Ping every process, and let a front try the models when it is time for that."""
        now = self._clock()
        with self._lock:
            self._pulses = {child: self._pulses.get(child) or Pulse() for child in everyone}
            self._sick = {
                owner: sick
                for owner, sick in self._sick.items()
                if owner is None or owner in self._pulses
            }
            asked = [child for child, pulse in self._pulses.items() if _ping(pulse, now)]
        for child in asked:
            child.channel.tell(messages.Ping())
        self._try(now)

    def judged(self, child: Child, verdict: TrialVerdict) -> bool:
        """Note what a trial in a process said of a model; True if that changes what is known."""
        owner = child if self._own_models else None
        with self._lock:
            sick = self._sick.setdefault(owner, FailingModels(self._clock))
        return sick.judged(verdict)

    def keep(self, loaded: Collection[tuple[str, int]]) -> None:
        """Forget what was said of versions that are not loaded any more."""
        for sick in self._sick_models().values():
            sick.keep(loaded)

    def sick(self) -> Mapping[tuple[str, int], str]:
        """Return the versions that fail their trials somewhere, and why."""
        found: dict[tuple[str, int], str] = {}
        for sick in self._sick_models().values():
            found.update(sick.why())
        return found

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

    def hung(self, workers_of: Callable[[str], Sequence[Child]]) -> list[tuple[Child, str]]:
        """Return the processes that have not answered for too long, and why that is said.

        Args:
            workers_of: returns the workers that have a model.
        """
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
        for owner, sick in self._sick_models().items():
            for model, seconds in sick.late().items():
                if seconds >= limit:
                    why = f"model {model!r} answers nobody for {seconds:.0f} s"
                    found += [(child, why) for child in ([owner] if owner else workers_of(model))]
        return found

    def _sick_models(self) -> Mapping[Child | None, FailingModels]:
        with self._lock:
            return dict(self._sick)

    def _try(self, now: float) -> None:
        interval = self._survival.canary_interval_s
        endpoints = self._endpoints()
        if not interval or now - self._tried < interval or not endpoints:
            return
        self._tried = now
        self._turn += 1
        # Of fronts one after the other: the way of each is tried, and none is asked often.
        turn = self._turn % len(endpoints)
        for child in endpoints if self._own_models else endpoints[turn : turn + 1]:
            child.channel.tell(messages.TryModels(interval))


def _ping(pulse: Pulse, now: float) -> bool:
    """Count a look at a process, and tell whether it has to be pinged: it has answered."""
    if pulse.asked is not None:
        pulse.missed += 1
        return False
    pulse.asked = now
    return True


SILENT = "the process that runs it does not answer"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known."""

    draining: bool
    listening: bool
    """Every process that takes calls has listened once."""
    serving: bool
    """The worker serves a front that listens, or a replica listens that has its models."""
    silent: bool
    """The worker, or a replica, does not answer the supervisor."""
    loaded: bool
    """The worker, or every replica that takes calls, has tried to load everything."""
    wanted: frozenset[str]
    """Models that should serve."""
    records: Sequence[ModelRecord]
    sick: Mapping[tuple[str, int], str]
    """Versions whose trials fail, and why."""
    partial: Mapping[tuple[str, int], str]
    """Versions that serve in some replicas alone, and why not in others."""
    strict: bool
    """`strict_readiness`."""
    without_models: bool
    """`ready_without_models`."""
    down_s: float
    """Seconds since the worker served last; 0 while it does, and before it first did."""
    repair_timeout_s: float
    """Seconds after which it will not come back; 0: it always may."""


def diagnose(facts: ServerFacts) -> Condition:
    """Decide what health tells."""
    ready = [(r.name, r.version) for r in facts.records if r.state == State.READY.value]
    sick = dict.fromkeys(ready, SILENT) if facts.silent else facts.sick
    found = {version: why for version, why in sick.items() if version in ready}
    shown = tuple((*version, why) for version, why in sorted({**found, **facts.partial}.items()))
    serves = facts.serving and facts.listening and not facts.silent and not facts.draining
    given_up = 0 < facts.repair_timeout_s <= facts.down_s
    enough = enough_serve(facts.wanted, ready, sick, facts.strict, facts.without_models)
    ready_now = serves and facts.loaded and enough
    return Condition(ready_now, facts.draining, not given_up, shown, facts.loaded)
