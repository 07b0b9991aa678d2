"""What is told of a server, from what is known of its processes and models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from inferd_server.control.messages import Condition, ModelRecord
from inferd_server.supervisor.diagnosis import SILENT, Facts, diagnose

GOOD = Facts(
    draining=False,
    listening=True,
    serving=True,
    silent=False,
    loaded=True,
    wanted=frozenset({"a", "b"}),
    records=(
        ModelRecord("a", 1, "READY", "", None),
        ModelRecord("a", 2, "READY", "", None),
        ModelRecord("b", 1, "READY", "", None),
        ModelRecord("c", 1, "UNAVAILABLE", "no", None),
    ),
    sick={},
    partial={},
    strict=True,
    without_models=False,
    down_s=0.0,
    repair_timeout_s=300.0,
)


def told(**changes: object) -> Condition:
    return diagnose(replace(GOOD, **changes))  # type: ignore[arg-type]


def test_a_server_with_nothing_wrong_is_ready_and_live() -> None:
    assert told() == Condition(ready=True, draining=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"draining": True},
        {"listening": False},
        {"serving": False},
        {"silent": True},
        {"loaded": False},
        {"wanted": frozenset({"a", "b", "c"})},
        # Its worker died, and the next one finds other models, or none.
        {"records": ()},
        {"records": (), "strict": False},
        {"records": (), "wanted": frozenset()},
        {"records": (), "wanted": frozenset(), "strict": False},
        {"records": GOOD.records[3:], "wanted": frozenset({"c"}), "strict": False},
        {"sick": {("b", 1): "no"}},
        {"strict": False, "sick": {("a", 1): "no", ("a", 2): "no", ("b", 1): "no"}},
    ],
)
def test_a_server_that_should_get_no_requests_is_not_ready_and_still_live(
    changes: Mapping[str, object],
) -> None:
    now = told(**changes)
    assert (now.ready, now.live) == (False, True)


@pytest.mark.parametrize(
    "changes",
    [
        # Another version of it serves.
        {"sick": {("a", 1): "no"}},
        # Not loaded any more.
        {"sick": {("c", 1): "no"}},
        {"strict": False, "wanted": frozenset({"a", "b", "c"})},
        {"records": (), "wanted": frozenset(), "without_models": True},
        {"strict": False, "sick": {("b", 1): "no"}},
    ],
)
def test_a_server_that_can_do_its_work_is_ready(changes: Mapping[str, object]) -> None:
    assert told(**changes).ready


def test_sick_models_are_told_if_they_are_loaded() -> None:
    assert told(sick={("b", 1): "late", ("c", 1): "late"}).sick == (("b", 1, "late"),)


def test_no_model_answers_while_the_worker_does_not() -> None:
    versions = [("a", 1), ("a", 2), ("b", 1)]
    assert told(silent=True).sick == tuple((*version, SILENT) for version in versions)


@pytest.mark.parametrize(
    ("down_s", "repair_timeout_s", "live"),
    [(0.0, 300.0, True), (299.0, 300.0, True), (300.0, 300.0, False), (1e6, 0.0, True)],
)
def test_a_server_is_live_until_its_worker_was_gone_for_too_long(
    down_s: float, repair_timeout_s: float, live: bool
) -> None:
    found = told(serving=False, down_s=down_s, repair_timeout_s=repair_timeout_s)
    assert (found.live, found.ready) == (live, False)


def test_a_version_that_one_replica_lacks_is_told_to_be_sick_with_the_reason() -> None:
    found = told(records=GOOD.records[:2], partial={("b", 1): "not there"})
    assert not found.ready
    assert found.sick == (("b", 1, "not there"),)
