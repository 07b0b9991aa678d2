"""What is to be said of the server as a whole: a pure function of what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd_server.control.messages import Condition, ModelRecord
from inferd_server.repository.entries import State
from inferd_server.repository.readiness import enough_serve

SILENT = "the process that runs it does not answer"


@dataclass(frozen=True, slots=True)
class Facts:
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


def diagnose(facts: Facts) -> Condition:
    """Decide what health tells."""
    ready = [(r.name, r.version) for r in facts.records if r.state == State.READY.value]
    sick = dict.fromkeys(ready, SILENT) if facts.silent else facts.sick
    found = {version: why for version, why in sick.items() if version in ready}
    shown = tuple((*version, why) for version, why in sorted({**found, **facts.partial}.items()))
    serves = facts.serving and facts.listening and not facts.silent and not facts.draining
    given_up = 0 < facts.repair_timeout_s <= facts.down_s
    enough = enough_serve(facts.wanted, ready, sick, facts.strict, facts.without_models)
    ready_now = serves and facts.loaded and enough
    return Condition(ready_now, facts.draining, not given_up, shown)
