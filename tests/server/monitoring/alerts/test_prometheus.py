"""A real Prometheus and a real Alertmanager tell a webhook what a real server does wrong."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from inferd_client import Client, InferdError
from inferd_server.monitoring.alerts.prometheus import rule_file
from inferd_server.monitoring.alerts.rules import FAILURES, AlertRule, rules_of
from inferd_server.settings.alerts import AlertSettings

from tests import models
from tests.deploy.scripts import dashboard_expressions
from tests.fakes.webhook import Webhook
from tests.prometheus import WITHIN, alertmanager, ask, prometheus, until
from tests.server.lifecycle.process import ready_process
from tests.server.serving import PATIENCE

PROGRAMS = ("prometheus", "prometheus-alertmanager")
# As the chart has them, but for the times, and for a queue that a test can fill.
RULES: Sequence[AlertRule] = rules_of(AlertSettings(alert_patience_s=1, alert_queue_above=4))
YAML = {
    "judged": "feedback: {tokens: always}\n",
    "planned": "response_cache: {}\n",
    "slow": "max_batch_size: 0\n",
}
# There is no GPU.
WITHOUT_DATA = {"inferd_device_memory_used_bytes"}
CALLERS = 60
"""Of the slow model, a tenth of a second each."""
ZEROS = {name: np.zeros((1, 16), np.int32) for name in ("INPUT0", "INPUT1")}

pytestmark = pytest.mark.slow


@dataclass
class Told:
    """What Alertmanager told: the last status of each alert and model."""

    webhook: Webhook
    last: dict[tuple[str, str], str] = field(default_factory=dict)

    def wait(self, alert: str, model: str, status: str) -> None:
        """Return once an alert of a model has a status."""
        end = time.monotonic() + WITHIN
        while self.last.get((alert, model)) != status:
            for each in self.webhook.came.get(timeout=max(0.0, end - time.monotonic()))["alerts"]:
                labels = each["labels"]
                self.last[labels["alertname"], labels.get("model", "")] = each["status"]


@dataclass
class Stack:
    """A server, the Prometheus that scrapes it, and what is told of it."""

    client: Client
    prometheus: str
    told: Told


@contextmanager
def watching(folder: Path, metrics_port: int, webhook: Webhook) -> Iterator[str]:
    """Run Prometheus and Alertmanager over a server; yields the URL of Prometheus."""
    rules = folder / "rules.yaml"
    rules.write_text(rule_file(RULES))
    url = webhook.url.replace("json://", "http://")
    receiver = {"name": "test", "webhook_configs": [{"url": url, "send_resolved": True}]}
    grouping = {"group_by": ["alertname", "model"], "group_wait": "0s", "group_interval": "1s"}
    route = {"receiver": "test", "repeat_interval": "1h", **grouping}
    with alertmanager(folder, {"route": route, "receivers": [receiver]}) as told:
        managers = [{"static_configs": [{"targets": [told.removeprefix("http://")]}]}]
        scraped = [{"targets": [f"127.0.0.1:{metrics_port}"]}]
        config = {
            "rule_files": [str(rules)],
            "alerting": {"alertmanagers": managers},
            "scrape_configs": [{"job_name": "inferd", "static_configs": scraped}],
        }
        with prometheus(folder, config) as asked:
            yield asked


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not here: {', '.join(missing)} (Debian packages of these names)")
    folder = tmp_path_factory.mktemp("stack")
    protos = {
        "judged": models.identity("FP32"),
        "watched": models.scale(2.0),
        "slow": models.slow_add(200_000),
        "planned": models.scale(3.0),
    }
    repository = models.repository(folder / "models", protos, YAML)
    reference = np.random.default_rng(7).normal(0, 1, (1000, 4)).astype(np.float32)
    np.savez(repository / "watched/1/reference.npz", INPUT0=reference)
    flags = (
        *("--processes", "split", "--fronts", "1", "--feedback-window-labels", "40"),
        *("--sample-share", "1", "--drift-cpu-share", "1", "--drift-window-rows", "300"),
        *("--plan-store", str(folder / "plans"), "--verdict-store", str(folder / "kept")),
    )
    with ready_process(repository, *flags) as (_, where), Webhook() as webhook:
        client = Client(f"127.0.0.1:{where['grpc_port']}", timeout=PATIENCE)
        with client, watching(folder, where["metrics_port"], webhook) as prometheus:
            yield Stack(client, prometheus, Told(webhook))


def label(client: Client, label: int, count: int) -> None:
    """Send labels for predictions of class 1."""
    rows = np.tile(np.float32([0, 1, 0, 0]), (count, 1))
    token = client.infer("judged", INPUT0=rows).prediction_token
    assert client.feedback(token, [label] * count) == count


def shift(client: Client, by: float) -> None:
    """Send two windows of rows."""
    rng = np.random.default_rng(8)
    for _ in range(60):
        client.infer("watched", INPUT0=rng.normal(by, 1, (10, 4)).astype(np.float32))


def test_an_accuracy_that_falls_fires_and_resolves(stack: Stack) -> None:
    label(stack.client, 2, 30)
    stack.told.wait("InferdAccuracyLow", "judged", "firing")
    for _ in range(2):
        label(stack.client, 1, 30)
    stack.told.wait("InferdAccuracyLow", "judged", "resolved")


def test_drift_fires_and_resolves(stack: Stack) -> None:
    shift(stack.client, 1.5)
    stack.told.wait("InferdDrift", "watched", "firing")
    shift(stack.client, 0.0)
    stack.told.wait("InferdDrift", "watched", "resolved")


def test_an_overload_fires_and_resolves(stack: Stack) -> None:
    with ThreadPoolExecutor(CALLERS) as callers:
        ask_slow = partial(stack.client.infer, "slow", timeout=WITHIN, **ZEROS)
        pending = [callers.submit(ask_slow) for _ in range(CALLERS)]
        stack.told.wait("InferdQueue", "slow", "firing")
    assert [one.exception() for one in pending] == [None] * CALLERS
    stack.told.wait("InferdQueue", "slow", "resolved")


def test_every_expression_of_the_rules_and_the_dashboard_gives_data(stack: Stack) -> None:
    stack.client.infer("planned", INPUT0=np.zeros((1, 4), np.float32))
    with suppress(InferdError):
        stack.client.infer("judged", INPUT0=np.zeros((1, 9), np.float32))
    with suppress(InferdError):
        stack.client.infer("slow", timeout=0.001, **ZEROS)
    # No request failed: those that did not stand for them.
    rules = [rule.promql.replace(FAILURES, "OK") for rule in RULES]
    asked = [re.sub(r" (<|>) [\d.]+$", "", one) for one in rules] + dashboard_expressions()
    wanted = [one for one in asked if not WITHOUT_DATA & set(re.findall(r"inferd_\w+", one))]
    assert len(wanted) > 20

    def silent() -> list[str]:
        return [one for one in wanted if not ask(stack.prometheus, one)]

    until(lambda: not silent(), silent)


def test_a_fallback_fires_and_resolves_once_the_model_is_gone(stack: Stack) -> None:
    stack.told.wait("InferdFallback", "planned", "firing")
    stack.client.unload("planned")
    stack.told.wait("InferdFallback", "planned", "resolved")
