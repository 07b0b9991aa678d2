"""The settings of drift."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from inferd_server.settings.section import Count, Seconds, Section


class DriftSettings(Section):
    """Requests and answers compared with a reference of their model."""

    drift_cpu_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="share of a core that each process with callers may use to look for drift; "
        "requests beyond are not looked at; 0: there is no looking",
    )
    drift_learn_rows: Annotated[int, Field(ge=0, le=100_000)] = Field(
        0,
        description="rows that a model's reference is learned from which brings none; 0: such a "
        "model is not looked at; model.yaml may say otherwise",
    )
    drift_window_rows: Count = Field(500, description="rows after which a window is judged")
    drift_window_s: Annotated[Seconds, Field(ge=1)] = Field(
        3600.0, description="seconds after which a window with fewer rows is judged, too"
    )
    drift_least_rows: Count = Field(100, description="rows that such a window has at least")
    drift_level: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="share of windows without drift that may have an alarm"
    )
