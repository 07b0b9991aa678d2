"""An alert begins once and ends once, however the value wavers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from inferd_server.monitoring.alerts.expressions import Labels, Latest
from inferd_server.monitoring.alerts.firing import AlertState, step
from inferd_server.monitoring.alerts.rules import AlertRule

A: Labels = (("model", "a"),)
B: Labels = (("model", "b"),)
WAIT, KEEP = 60.0, 30.0


def rule(sign: Literal["<", ">"] = ">", wait: float = WAIT) -> AlertRule:
    return AlertRule("Hot", Latest("heat"), sign, 10.0, wait, KEEP, "it is hot")


class Followed:
    """Steps of one rule, and what they told."""

    def __init__(self, followed: AlertRule | None = None) -> None:
        self._rule = followed or rule()
        self._state = AlertState()

    def at(self, now: float, values: Mapping[Labels, float]) -> list[tuple[str, Labels]]:
        self._state, events = step(self._state, [self._rule], {"Hot": values}, now)
        return [("over" if event.resolved else "fires", event.key[1]) for event in events]


def test_it_fires_once_the_condition_held_for_so_long() -> None:
    followed = Followed()
    assert followed.at(0, {A: 11}) == []
    assert followed.at(59, {A: 11}) == []
    assert followed.at(60, {A: 11}) == [("fires", A)]
    assert followed.at(61, {A: 12}) == []


def test_a_condition_that_stops_meanwhile_begins_anew() -> None:
    followed = Followed()
    followed.at(0, {A: 11})
    followed.at(30, {A: 9})
    assert followed.at(60, {A: 11}) == []
    assert followed.at(120, {A: 11}) == [("fires", A)]


def test_a_value_that_wavers_is_told_once() -> None:
    followed = Followed(rule(wait=0.0))
    assert followed.at(0, {A: 11}) == [("fires", A)]
    for now in range(10, 200, 20):
        assert followed.at(now, {A: 9}) == []
        assert followed.at(now + 10, {A: 11}) == []
    assert followed.at(229, {A: 9}) == []
    assert followed.at(230, {A: 9}) == [("over", A)]
    assert followed.at(240, {A: 9}) == []


def test_it_is_over_where_there_is_no_value_any_more() -> None:
    followed = Followed(rule(wait=0.0))
    followed.at(0, {A: 11})
    assert followed.at(29, {}) == []
    assert followed.at(30, {}) == [("over", A)]


def test_what_it_is_about_is_told_apart() -> None:
    followed = Followed(rule(wait=0.0))
    assert followed.at(0, {A: 11, B: 9}) == [("fires", A)]
    assert followed.at(31, {A: 9, B: 11}) == [("fires", B), ("over", A)]


def test_a_value_may_be_too_low_and_nan_is_neither() -> None:
    followed = Followed(rule("<", wait=0.0))
    assert followed.at(0, {A: math.nan, B: 9}) == [("fires", B)]


def test_people_are_told_what_it_is_about_and_by_how_much() -> None:
    _, (event,) = step(AlertState(), [rule(wait=0.0)], {"Hot": {A: 11.23456}}, 0.0)
    assert event.text == "Hot (model a): it is hot: 11.23 > 10"
