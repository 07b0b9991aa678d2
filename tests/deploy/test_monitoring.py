"""What the chart brings for Prometheus, Grafana and the number of pods."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.deploy.helm import CHART, ROOT, VALUE_SETS, Helm, Values
from tests.deploy.schemas import OTHERS, fits
from tests.deploy.scripts import dashboard_expressions, load_script

MADE = load_script("make_dashboard")
WATCHED, HPA, KEDA = (VALUE_SETS[name] for name in ("pod monitor", "hpa", "keda"))
METRIC = re.compile(r"\binferd_[a-z_]+\b")
HISTOGRAM = re.compile(r"_(bucket|sum|count)$")


def documented() -> set[str]:
    """Return the metrics of the page that lists them all."""
    return set(
        re.findall(r"^\| `(inferd_\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    )


def test_the_committed_dashboard_is_made_of_the_panels() -> None:
    assert json.loads((CHART / "files/dashboard.json").read_text()) == MADE.dashboard()


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    asked = {
        HISTOGRAM.sub("", name) for one in dashboard_expressions() for name in METRIC.findall(one)
    }
    assert len(asked) > 15
    assert asked <= documented()


def test_the_service_is_scraped_where_monitors_of_services_are_wanted(helm: Helm) -> None:
    monitor = helm.object("ServiceMonitor", VALUE_SETS["service monitor"])
    service = helm.object("Service", {})
    wanted = monitor["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("not here: promtool (the Debian package prometheus)")
    rules = [{"record": f"r:{n}", "expr": one} for n, one in enumerate(dashboard_expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run(
        [promtool, "check", "rules", file], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_operator_is_told_what_to_scrape_and_when_to_warn(helm: Helm) -> None:
    monitor = helm.object("PodMonitor", WATCHED)
    labels = helm.object("Deployment", {})["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "interval": "15s"}]
    ports = helm.pod({})["containers"][0]["ports"]
    assert "metrics" in {port["name"] for port in ports}
    rule = helm.object("PrometheusRule", WATCHED)
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    for each in (monitor, rule):
        assert each["metadata"]["labels"]["release"] == "prometheus"


@pytest.mark.parametrize("kind", OTHERS)
def test_objects_of_other_kinds_fit_the_models_of_those(helm: Helm, kind: str) -> None:
    by_service = VALUE_SETS["service monitor"]
    found = helm.object(kind, by_service if kind == "ServiceMonitor" else {**WATCHED, **KEDA})
    assert fits(found)
    assert not fits(found | {"spec": found["spec"] | {"misspelt": 1}})
    assert not fits(found | {"spec": 1})


def test_grafana_finds_the_dashboard_as_it_was_made(helm: Helm) -> None:
    maps = [each for each in helm.objects(WATCHED) if each["kind"] == "ConfigMap"]
    (found,) = [each for each in maps if each["metadata"]["labels"].get("grafana_dashboard")]
    assert json.loads(found["data"]["inferd.json"]) == MADE.dashboard()


@pytest.mark.parametrize("values", [HPA, KEDA], ids=["hpa", "keda"])
def test_whoever_scales_alone_says_how_many_pods_there_are(helm: Helm, values: Values) -> None:
    kinds = {each["kind"] for each in helm.objects(values)}
    assert len(kinds & {"HorizontalPodAutoscaler", "ScaledObject"}) == 1
    assert "replicas" not in helm.object("Deployment", values)["spec"]
    assert helm.object("Deployment", {})["spec"]["replicas"] == 1


def test_the_autoscaler_of_kubernetes_aims_at_the_busy_ratio(helm: Helm) -> None:
    found = helm.object("HorizontalPodAutoscaler", HPA)
    kubernetes_validate.validate(found, "1.34", strict=True)
    (metric,) = found["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "inferd_engine_busy_ratio"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "0.7"}
    assert found["spec"]["scaleTargetRef"]["name"] == "inferd"


def test_keda_asks_for_the_pods_of_this_release_alone(helm: Helm) -> None:
    spec = helm.object("ScaledObject", KEDA)["spec"]
    busy, waiting = (trigger["metadata"] for trigger in spec["triggers"])
    pods = r'{namespace="default",pod=~"inferd-[a-z0-9]+-[a-z0-9]+"}'
    assert busy["query"] == f"sum(max by (pod) (inferd_engine_busy_ratio{pods}))"
    assert waiting["query"] == f"sum(max by (pod, model, version) (inferd_waiting_requests{pods}))"
    assert (busy["threshold"], waiting["threshold"]) == ("0.7", "100")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"by": "both"}, "value must be one of '', 'hpa', 'keda'"),
        ({"by": "hpa", "minReplicas": 9}, "minReplicas is 9, and autoscaling.maxReplicas only 4"),
        ({"by": "keda"}, "has to know where Prometheus is"),
        ({"by": "hpa", "busyRatio": "70"}, "busyRatio"),
        ({"by": "hpa", "busyRatio": "0.00"}, "busyRatio"),
    ],
)
def test_what_cannot_scale_is_refused_with_a_sentence(
    helm: Helm, values: Values, sentence: str
) -> None:
    done = helm.template({"autoscaling": values})
    assert done.returncode != 0
    assert sentence in done.stderr


def test_nodes_can_be_drained_one_pod_at_a_time(helm: Helm) -> None:
    budget = helm.object("PodDisruptionBudget", {})
    kubernetes_validate.validate(budget, "1.34", strict=True)
    assert budget["spec"]["maxUnavailable"] == 1
    none = helm.objects({"podDisruptionBudget": {"maxUnavailable": ""}})
    assert "PodDisruptionBudget" not in {each["kind"] for each in none}
    assert helm.template({"podDisruptionBudget": {"maxUnavailable": "0%"}}).returncode != 0
