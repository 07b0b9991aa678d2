"""compose/: the server on one machine, with Prometheus and Grafana."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from inferd_server.settings.sources import load_settings

from tests import models
from tests.deploy.helm import ROOT
from tests.prometheus import ask, prometheus, until
from tests.server.lifecycle.process import ready_process

FOLDER = ROOT / "compose"
COMPOSE = FOLDER / "compose.yaml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]


def mounts(service: str) -> dict[str, Path]:
    """Return which file of ours a container finds where."""
    found = {}
    for volume in SERVICES[service]["volumes"]:
        source, target = re.sub(r"\$\{\w+:-(.*?)\}", r"\1", volume).split(":")[:2]
        if source.startswith("."):
            found[target] = (FOLDER / source).resolve()
    return found


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def test_the_file_keeps_to_the_schema_of_compose() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", COMPOSE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("service", SERVICES)
def test_whatever_is_mounted_is_there(service: str) -> None:
    assert mounts(service)
    assert [str(path) for path in mounts(service).values() if not path.exists()] == []


@pytest.mark.parametrize("service", SERVICES)
def test_nothing_is_published_beyond_this_machine(service: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])


def test_the_server_is_the_image_for_the_cpu_and_confined() -> None:
    server = SERVICES["inferd"]
    assert (FOLDER / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    drain = load_settings({}, {}).lifecycle
    seconds = int(server["stop_grace_period"].removesuffix("s"))
    assert seconds > drain.drain_delay_s + drain.drain_timeout_s


def test_promtool_takes_what_prometheus_is_given(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("not here: promtool (the Debian package prometheus)")
    for target, path in mounts("prometheus").items():
        shutil.copy(path, tmp_path / Path(target).name)
    command = [promtool, "check", "config", tmp_path / "prometheus.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "rules found" in done.stdout


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    [source] = load("grafana-datasource.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    [provider] = load("grafana-dashboards.yaml")["providers"]
    dashboards = {str(Path(target).parent) for target in mounts("grafana") if "json" in target}
    assert dashboards == {provider["options"]["path"]}


@pytest.mark.slow
def test_a_real_prometheus_scrapes_a_server_as_the_file_says(tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("not here: prometheus (the Debian package of that name)")
    repository = models.repository(tmp_path / "models", {"scaled": models.scale(2.0)})
    config = load("prometheus.yaml")
    [target] = config["scrape_configs"][0]["static_configs"]
    assert target["targets"] == ["inferd:8002"]
    with ready_process(repository) as (_, where):
        target["targets"] = [f"127.0.0.1:{where['metrics_port']}"]
        rules = {"rule_files": [str(ROOT / "helm/inferd/files/alerts.yaml")]}
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        with prometheus(tmp_path, {**config, **rules, "global": every}) as url:
            until(lambda: len(ask(url, "inferd_server_info")) == 1, lambda: ask(url, "up"))
            assert ask(url, "up")[0]["metric"]["namespace"] == "compose"
