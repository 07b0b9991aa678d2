"""The table of alerts: on what, from where on, and in which words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from inferd_server.monitoring.alerts.expressions import (
    VERSION,
    Expression,
    Increase,
    Labels,
    Latest,
    Quantile,
    Quotient,
)
from inferd_server.settings.alerts import AlertSettings

LATELY, LONGER = 300, 600
"""Seconds that what counters counted is looked at for."""
FAILURES = "INTERNAL|UNAVAILABLE|UNKNOWN|DATA_LOSS"
"""Codes of answers that no caller is to blame for."""


@dataclass(frozen=True, slots=True)
class AlertRule:
    """A condition, and how long it holds before anybody is told."""

    name: str
    expression: Expression
    sign: Literal["<", ">"]
    threshold: float
    wait_s: float
    """For so long it must hold before it fires."""
    keep_s: float
    """For so long it must not hold before it is over."""
    summary: str

    def holds(self, value: float) -> bool:
        """Tell whether a value meets the condition; NaN never does."""
        return value < self.threshold if self.sign == "<" else value > self.threshold

    @property
    def promql(self) -> str:
        """The condition for Prometheus."""
        return f"{self.expression.promql} {self.sign} {self.threshold:g}"

    def text(self, labels: Labels, value: float) -> str:
        """Return what people are told."""
        about = ", ".join(f"{name} {text}" for name, text in labels)
        return f"{self.name} ({about}): {self.summary}: {value:.4g} {self.sign} {self.threshold:g}"


Condition = tuple[str, Expression, Literal["<", ">"], float, float, str]
"""A rule's name, expression, sign, threshold, seconds to wait, and summary."""


def rules_of(settings: AlertSettings) -> Sequence[AlertRule]:
    """Return the rules; a threshold of 0 for accuracy turns that one off by itself."""
    return [
        AlertRule(name, expression, sign, threshold, wait_s, settings.alert_patience_s, summary)
        for name, expression, sign, threshold, wait_s, summary in conditions(settings)
    ]


def conditions(settings: AlertSettings) -> Sequence[Condition]:
    """Return the conditions of the rules."""
    wait = settings.alert_patience_s
    requests = Increase("inferd_requests_total", VERSION, LATELY)
    failed = Increase("inferd_requests_total", VERSION, LATELY, "code", FAILURES)
    return (
        (
            *("InferdAccuracyLow", Latest("inferd_model_accuracy_upper"), "<"),
            *(settings.alert_accuracy_below, wait),
            "even the upper end of the accuracy's interval is low",
        ),
        (
            *("InferdDrift", Latest("inferd_drift_alarm"), ">", 0.0, 0.0),
            "a feature is distributed otherwise than in the reference",
        ),
        (
            *("InferdErrors", Quotient(failed, requests), ">", settings.alert_errors_above, wait),
            "share of answers of the last five minutes that failed",
        ),
        (
            *("InferdSlow", Quantile(0.99, "inferd_request_seconds", VERSION, LATELY), ">"),
            *(settings.alert_p99_above_s, wait),
            "seconds within which 99 of 100 requests were answered",
        ),
        (
            *("InferdFallback", Latest("inferd_plan_state", "state", "FALLBACK|FAILED"), ">"),
            *(0.0, wait),
            "another engine serves than was asked for",
        ),
        (
            *("InferdRestarts", Increase("inferd_restarts_total", ("process",), LONGER), ">"),
            *(settings.alert_restarts_above, 0.0),
            "processes that were started again in ten minutes",
        ),
        (
            *("InferdQueue", Latest("inferd_waiting_requests"), ">", settings.alert_queue_above),
            *(wait, "requests that wait for a run"),
        ),
    )
