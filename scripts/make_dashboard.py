"""Makes Grafana's dashboard from one list of panels.

python scripts/make_dashboard.py > helm/inferd/files/dashboard.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 12, 8
"""Of a panel; a row of the dashboard has a width of 24."""
SOURCE = {"type": "prometheus", "uid": "${source}"}
CHOSEN = 'job=~"$job", model=~"$model"'
"""Of metrics of models, what the variables of the dashboard choose."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: lines by the text of their legends; the unit as Grafana names it."""

    title: str
    unit: str
    lines: Mapping[str, str]
    stacked: bool = False


def rate(metric: str, by: str, more: str = "") -> str:
    """Return what a counter of models grows by in a second, by some labels."""
    labels = f"{CHOSEN}, {more}" if more else CHOSEN
    return f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(part: float, metric: str) -> str:
    """Return a quantile of a histogram, by model."""
    buckets = rate(f"{metric}_bucket", "model, le")
    return f"histogram_quantile({part}, {buckets})"


PANELS: Sequence[Panel] = (
    Panel(
        "Requests", "reqps", {"{{model}} {{code}}": rate("inferd_requests_total", "model, code")}
    ),
    Panel(
        "Time of a request",
        "s",
        {
            "{{model}} p50": quantile(0.5, "inferd_request_seconds"),
            "{{model}} p99": quantile(0.99, "inferd_request_seconds"),
        },
    ),
    Panel(
        "Where the time goes",
        "percentunit",
        {"{{phase}}": rate("inferd_phase_seconds_total", "phase")},
        stacked=True,
    ),
    Panel(
        "How busy the engines are",
        "percentunit",
        {"{{instance}}": 'inferd_engine_busy_ratio{job=~"$job"}'},
    ),
    Panel(
        "Rows of a batch",
        "short",
        {
            "{{model}}": rate("inferd_batch_rows_sum", "model")
            + " / "
            + rate("inferd_batch_rows_count", "model")
        },
    ),
    Panel(
        "Requests that wait",
        "short",
        {"{{model}}": f"sum by (model) (inferd_waiting_requests{{{CHOSEN}}})"},
    ),
    Panel(
        "Refused and late",
        "reqps",
        {
            "{{model}} refused {{code}}": rate("inferd_refused_requests_total", "model, code"),
            "{{model}} late {{phase}}": rate("inferd_deadline_misses_total", "model, phase"),
        },
    ),
    Panel(
        "Memory",
        "bytes",
        {
            "host {{instance}}": 'inferd_host_memory_bytes{job=~"$job"}',
            "shared {{instance}}": 'inferd_shared_memory_bytes{job=~"$job"}',
            "device {{device}}": 'inferd_device_memory_used_bytes{job=~"$job"}',
        },
    ),
    Panel(
        "Response cache",
        "reqps",
        {"{{model}} {{result}}": rate("inferd_cache_requests_total", "model, result")},
    ),
    Panel(
        "Accuracy",
        "percentunit",
        {
            "{{model}} {{version}}": f"inferd_model_accuracy{{{CHOSEN}}}",
            "{{model}} {{version}} at most": f"inferd_model_accuracy_upper{{{CHOSEN}}}",
        },
    ),
    Panel("Drift", "short", {"{{model}} {{feature}}": f"inferd_drift_psi{{{CHOSEN}}}"}),
    Panel(
        "Engines that are not as asked for",
        "short",
        {"{{model}} {{state}}": f'inferd_plan_state{{{CHOSEN}, state!="READY"}} > 0'},
    ),
    Panel(
        "Restarts",
        "short",
        {"{{process}}": 'sum by (process) (increase(inferd_restarts_total{job=~"$job"}[1h]))'},
    ),
    Panel(
        "Alerts that fire",
        "short",
        {"{{alertname}} {{model}}": 'ALERTS{alertname=~"Inferd.*", alertstate="firing"}'},
    ),
)


def chart(number: int, panel: Panel) -> dict[str, Any]:
    """Return a panel as Grafana reads it, at its place among the others."""
    custom: dict[str, Any] = {"fillOpacity": 10, "showPoints": "never"}
    if panel.stacked:
        custom |= {"fillOpacity": 60, "stacking": {"mode": "percent"}}
    return {
        "id": number + 1,
        "title": panel.title,
        "type": "timeseries",
        "datasource": SOURCE,
        "gridPos": {
            "h": HEIGHT,
            "w": WIDTH,
            "x": number % 2 * WIDTH,
            "y": number // 2 * HEIGHT,
        },
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": custom},
            "overrides": [],
        },
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for index, (legend, expression) in enumerate(panel.lines.items())
        ],
    }


def variable(name: str, metric: str) -> dict[str, Any]:
    """Return a choice of one, several or all values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({metric}, {name})",
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def dashboard() -> dict[str, Any]:
    """Return the whole, as Grafana imports it."""
    return {
        "uid": "inferd",
        "title": "inferd",
        "tags": ["inferd"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [
                {
                    "name": "source",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                },
                variable("job", "inferd_server_info"),
                variable("model", "inferd_requests_total"),
            ]
        },
        "panels": [chart(number, panel) for number, panel in enumerate(PANELS)],
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=1) + "\n")
