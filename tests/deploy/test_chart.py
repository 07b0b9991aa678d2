"""The chart as a whole: helm accepts it, and Kubernetes would accept what it renders to."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.deploy.helm import CHART, ROOT, SINCE, VALUE_SETS, Helm, Values, each_value_set
from tests.deploy.schemas import fault, route_faults

# The first that the chart allows, and one of today.
OLDER = ("1.27", "1.34")
# What Kubernetes' parser takes for a boolean, where PyYAML may see a string.
BARE_BOOLEAN = re.compile(
    r"^[^#]*[:-]\s+(y|n|yes|no|on|off)\s*$|^\s*(y|n|yes|no|on|off):", re.IGNORECASE
)


@pytest.mark.slow
@each_value_set
def test_lint_finds_nothing(helm: Helm, values: Values, tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    done = helm.run("lint", "--strict", CHART, "--values", file)
    assert done.returncode == 0, done.stdout + done.stderr


def test_lint_finds_nothing_in_the_chart_as_it_comes(helm: Helm) -> None:
    done = helm.run("lint", "--strict", CHART)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_object_fits_the_schemas_of_its_kind(helm: Helm, name: str) -> None:
    objects = helm.objects(VALUE_SETS[name])
    assert len(objects) >= 4
    for each in objects:
        assert fault(each) == ""


@pytest.mark.slow
@pytest.mark.parametrize("version", OLDER)
def test_every_object_fits_older_versions_of_kubernetes(helm: Helm, version: str) -> None:
    newer = {name for name, since in SINCE.items() if number(since) > number(version)}
    for name in VALUE_SETS.keys() - newer:
        for each in helm.objects(VALUE_SETS[name]):
            assert fault(each, version) == ""


def test_routes_fit_the_schema_of_gateways(helm: Helm) -> None:
    routes = [
        helm.object("GRPCRoute", values) for values in VALUE_SETS.values() if "grpcRoute" in values
    ]
    wrong = routes[0] | {"spec": {"rules": [{"backendRefs": [{"name": "a", "port": "8001"}]}]}}
    *found, fault = route_faults([*routes, wrong])
    assert found == [""] * len(routes)
    assert "must be integer" in fault


def number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@each_value_set
def test_no_name_is_read_as_a_boolean(helm: Helm, values: Values) -> None:
    lines = helm.text(values, name="y").splitlines()
    assert [line for line in lines if BARE_BOOLEAN.search(line)] == []


def test_the_search_for_booleans_finds_them() -> None:
    bare = ["name: y", "  - name: N", "- off", "  on: x"]
    quoted = ['name: "y"', "  - name: Nn", '- "off"', '  "on": x', "# name: y", "only: x"]
    assert [line for line in bare + quoted if BARE_BOOLEAN.search(line)] == bare


@pytest.mark.parametrize("name", ["y", "123", "1e3"])
def test_names_stay_text_whatever_the_release_is_called(helm: Helm, name: str) -> None:
    values = {"fullnameOverride": name}
    for each in helm.objects(values, name):
        assert isinstance(each["metadata"]["name"], str)
        assert all(isinstance(label, str) for label in each["metadata"]["labels"].values())


def test_the_longest_name_leaves_room_for_the_suffix(helm: Helm) -> None:
    name = "inferd" + "x" * 47
    values = VALUE_SETS["headless"]
    services = [each for each in helm.objects(values, name) if each["kind"] == "Service"]
    assert [len(each["metadata"]["name"]) for each in services] == [62, 53]


def test_the_names_say_what_runs_whatever_the_release_is_called(helm: Helm) -> None:
    assert helm.object("Deployment", {}, "shop")["metadata"]["name"] == "shop-inferd"
    assert helm.object("Deployment", {}, "inferd-a")["metadata"]["name"] == "inferd-a"


def test_package_makes_an_archive_of_the_version(helm: Helm, tmp_path: Path) -> None:
    done = helm.run("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    archive = tmp_path / f"inferd-{version}.tgz"
    assert helm.template({}, chart=archive).stdout == helm.text({})


def test_the_chart_works_as_a_dependency(helm: Helm, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "charts" / "inferd").symlink_to(CHART)
    (parent / "Chart.yaml").write_text("{apiVersion: v2, name: parent, version: 0.1.0}")
    done = helm.template({"global": {"a": 1}, "inferd": {"replicas": 2}}, chart=parent)
    assert done.returncode == 0, done.stderr
    assert "replicas: 2" in done.stdout


def test_the_chart_deploys_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]


def test_kubernetes_without_grpc_probes_is_refused(helm: Helm) -> None:
    done = helm.run("template", CHART, "--kube-version", "1.26.9")
    assert done.returncode != 0
    assert "incompatible with Kubernetes" in done.stderr
    assert helm.run("template", CHART, "--kube-version", "1.27.1-gke.100").returncode == 0
