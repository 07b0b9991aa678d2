"""The settings of alerts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferd_server.settings.section import Seconds, Section

Share = Annotated[float, Field(ge=0, le=1)]


class AlertSettings(Section):
    """Alerts of one server (docs/alerts.md)."""

    alert_urls_file: str = Field(
        "",
        description="file of Apprise URLs, one a line, that are told of alerts; empty: nobody is",
    )
    alert_interval_s: Annotated[Seconds, Field(ge=0.1)] = Field(
        15.0, description="seconds between two looks at the metrics for alerts"
    )
    alert_pause_s: Seconds = Field(
        10.0, description="seconds between two messages to one of them: what happens goes into one"
    )
    alert_patience_s: Seconds = Field(
        60.0,
        description="seconds that a condition holds before its alert is told, and is over before "
        "that is told",
    )
    alert_accuracy_below: Share = Field(
        0.8, description="alert where the upper end of the accuracy's interval is below this"
    )
    alert_errors_above: Share = Field(
        0.05, description="alert where a larger share of a model's answers failed"
    )
    alert_p99_above_s: Seconds = Field(
        1.0, description="alert where 99 of 100 requests took up to more seconds than this"
    )
    alert_restarts_above: Annotated[float, Field(ge=0)] = Field(
        2.0, description="alert where a process was started again more often in ten minutes"
    )
    alert_queue_above: Annotated[float, Field(ge=0)] = Field(
        500.0, description="alert where more requests wait for a model"
    )
