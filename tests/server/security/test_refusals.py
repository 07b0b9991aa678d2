"""Refused calls are counted by reason, and some of each are logged with who made them."""

from __future__ import annotations

import logging

import pytest
from inferd_server.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from inferd_server.monitoring.bounded_log import LINES, PERIOD_S
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.snapshot import merge, without_gauges
from inferd_server.security.refusals import Refusals

from tests.fakes.call import FakeCall
from tests.fakes.clock import FakeClock

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
WRONG = Unauthenticated("the token is not known here", reason="TOKEN_UNKNOWN")


def test_every_refusal_is_counted_by_its_reason_over_all_processes() -> None:
    metrics = Metrics()
    refusals = Refusals(metrics, FakeClock())
    for _ in range(50):
        refusals(LOAD, FakeCall("x"), WRONG)
    refusals(INFER, FakeCall("x"), ResourceExhausted("", reason="RATE_LIMIT"))
    gone = without_gauges(metrics.snapshot())
    assert merge([gone, metrics.snapshot()]).refused_calls == {
        "TOKEN_UNKNOWN": 100,
        "RATE_LIMIT": 2,
    }
    counted = metrics.registry.get_sample_value
    assert counted("inferd_refused_calls_total", {"reason": "TOKEN_UNKNOWN"}) == 50
    # Only requests for inference are among the requests.
    labels = {"model": "", "version": "", "code": "RESOURCE_EXHAUSTED"}
    assert counted("inferd_requests_total", labels) == 1


def test_a_few_of_many_refusals_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    refusals = Refusals(Metrics(), clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            refusals(LOAD, FakeCall("x"), WRONG)
        clock.advance(PERIOD_S)
        refusals(LOAD, FakeCall("x"), WRONG)
    assert len(caplog.records) == LINES + 1
    assert (
        vars(caplog.records[0]).items()
        >= {
            "reason": "TOKEN_UNKNOWN",
            "method": LOAD,
            "peer": "ipv4:127.0.0.1:1",
        }.items()
    )
    assert vars(caplog.records[-1])["left_out"] == 50 - LINES


def test_the_line_names_the_identity_that_lacks_a_permission(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = PermissionDenied("", reason="PERMISSION_MISSING", facts={"identity": "a"})
    with caplog.at_level(logging.WARNING):
        Refusals(Metrics(), FakeClock())(LOAD, FakeCall("a"), error)
    assert vars(caplog.records[0])["identity"] == "a"
