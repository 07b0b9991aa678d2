"""Which alerts fire: a pure function of what fired before and of the values of now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from inferd_server.monitoring.alerts.expressions import Labels, Values
from inferd_server.monitoring.alerts.rules import AlertRule

AlertKey: TypeAlias = tuple[str, Labels]
"""Name of the rule, and what it is about."""


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """An alert that began or ended."""

    key: AlertKey
    resolved: bool
    text: str
    """For people."""


@dataclass(frozen=True, slots=True)
class FiringAlert:
    """An alert that somebody was told of."""

    value: float
    """When its condition held last."""
    held_at: float
    """Monotonic seconds of that."""


@dataclass(frozen=True, slots=True)
class AlertState:
    """What is known of conditions that hold."""

    pending: Mapping[AlertKey, float] = field(default_factory=dict)
    """Since when, of those that do not fire yet."""
    firing: Mapping[AlertKey, FiringAlert] = field(default_factory=dict)


def step(
    state: AlertState, rules: Sequence[AlertRule], values: Mapping[str, Values], now: float
) -> tuple[AlertState, list[AlertEvent]]:
    """Return what is known now, and what began and ended.

    An alert fires once its condition has held for the rule's `wait_s`, and is over once it has
    not held for `keep_s`: each is told once, however the value wavers meanwhile.

    Args:
        state: from the step before.
        rules: of which one name is one rule.
        values: by name of the rule.
        now: monotonic seconds.
    """
    pending: dict[AlertKey, float] = {}
    firing = dict(state.firing)
    events: list[AlertEvent] = []
    for rule in rules:
        for labels, value in values.get(rule.name, {}).items():
            if not rule.holds(value):
                continue
            key = rule.name, labels
            since = state.pending.get(key, now)
            if key in firing:
                firing[key] = FiringAlert(value, now)
            elif now - since >= rule.wait_s:
                firing[key] = FiringAlert(value, now)
                events.append(AlertEvent(key, False, rule.text(labels, value)))
            else:
                pending[key] = since
        events += _ended(rule, firing, now)
    return replace(state, pending=pending, firing=firing), events


def _ended(rule: AlertRule, firing: dict[AlertKey, FiringAlert], now: float) -> list[AlertEvent]:
    """Take out the alerts of a rule that are over."""
    over = [
        key
        for key, alert in firing.items()
        if key[0] == rule.name and now > alert.held_at and now - alert.held_at >= rule.keep_s
    ]
    found = [(key, firing.pop(key).value) for key in over]
    return [AlertEvent(key, True, rule.text(key[1], value)) for key, value in found]
