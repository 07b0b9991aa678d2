"""Where a served request's time went, as its caller is told it, and as /metrics tells it."""

from __future__ import annotations

import re
from collections.abc import Mapping

import grpc
from prometheus_client.parser import text_string_to_metric_families

from tests.server.serving import Running, metrics_text

ASKED = ("server-timing", "true")


def told(call: grpc.Call) -> Mapping[str, float]:
    """Return the milliseconds of each phase, and of all, as a call was told them."""
    (timing,) = [value for key, value in call.trailing_metadata() if key == "server-timing"]
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=([\d.]+)", timing)}


def samples(server: Running, name: str, model: str = "fake") -> Mapping[str, float]:
    """Return the samples of a model, by their phase, if they have one."""
    families = text_string_to_metric_families(metrics_text(server.metrics_port))
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return {
        sample.labels.get("phase", ""): sample.value
        for sample in found
        if sample.labels["model"] == model
    }
