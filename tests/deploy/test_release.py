"""A release's life, by helm itself against a fake API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.helm import CHART, KUBECTL, VALUE_SETS, Helm, Values, each_value_set
from tests.deploy.schemas import fault
from tests.fakes.kube_api import KubeApi, serving

BROKEN: Values = {"image": {"tag": "broken"}}
DEPLOYMENTS = ("apps/v1", "deployments")
SERVICES = ("v1", "services")


@dataclass(frozen=True)
class Cluster:
    """Helm, and the API server that it talks to."""

    helm: Helm
    api: KubeApi
    kubeconfig: Path

    def run(self, *arguments: str | Path, values: Values | None = None, code: int = 0) -> str:
        """Run helm and return what it wrote, on either stream."""
        wait = ["--wait", "--timeout", "20s"] if arguments[0] != "test" else []
        given = ["--values", "-"] if values is not None else []
        config = ["--kubeconfig", str(self.kubeconfig)]
        verb, *rest = arguments
        done = self.helm.run(verb, *wait, *given, *config, *rest, given=json.dumps(values))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def names(self, place: tuple[str, str]) -> set[str]:
        """Return the names of the objects of a kind."""
        return {item["metadata"]["name"] for item in self.api.store.listed(place)}


@pytest.fixture
def cluster(helm: Helm, tmp_path: Path) -> Iterator[Cluster]:
    with serving({"inferd:broken"}, fault) as api:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(api.kubeconfig())
        yield Cluster(helm, api, kubeconfig)


@pytest.mark.slow
def test_a_release_lives_from_install_to_uninstall(cluster: Cluster) -> None:
    cluster.run("install", "inferd", CHART, values={})
    cluster.run("upgrade", "inferd", CHART, values=VALUE_SETS["headless"])
    assert cluster.names(SERVICES) == {"inferd", "inferd-headless"}
    cluster.run("rollback", "inferd", "1")
    assert cluster.names(SERVICES) == {"inferd"}
    [deployment] = cluster.api.store.listed(DEPLOYMENTS)
    assert deployment["spec"]["replicas"] == 1
    cluster.run("uninstall", "inferd")
    assert cluster.names(SERVICES) == cluster.names(DEPLOYMENTS) == set()


@pytest.mark.slow
def test_helm_test_runs_the_health_pod_and_removes_it(cluster: Cluster) -> None:
    cluster.run("install", "inferd", CHART, values={})
    assert "Succeeded" in cluster.run("test", "inferd")
    assert cluster.names(("v1", "pods")) == set()


@pytest.mark.slow
def test_a_release_that_never_gets_ready_is_rolled_back(cluster: Cluster) -> None:
    limits = ["--rollback-on-failure", "--timeout", "4s"]
    told = cluster.run("install", "inferd", CHART, *limits, values=BROKEN, code=1)
    assert "rollback-on-failure" in told
    assert cluster.names(DEPLOYMENTS) == set()


@pytest.mark.slow
def test_an_upgrade_that_never_gets_ready_goes_back_to_what_served(cluster: Cluster) -> None:
    cluster.run("install", "inferd", CHART, values={})
    limits = ["--rollback-on-failure", "--timeout", "4s"]
    cluster.run("upgrade", "inferd", CHART, *limits, values=BROKEN, code=1)
    [deployment] = cluster.api.store.listed(DEPLOYMENTS)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "inferd:0.1.0"
    assert deployment["status"]["readyReplicas"] == 1


@pytest.mark.slow
def test_jobs_that_build_plans_are_gone_when_the_servers_come(cluster: Cluster) -> None:
    cluster.run("install", "inferd", CHART, values=VALUE_SETS["mig by dra"])
    assert cluster.names(("batch/v1", "jobs")) == set()
    [template] = cluster.names(("resource.k8s.io/v1", "resourceclaimtemplates"))
    assert not template.endswith("-build")


@pytest.mark.slow
@each_value_set
def test_every_set_of_values_is_installed_and_leaves_nothing(
    cluster: Cluster, values: Values
) -> None:
    cluster.run("install", "inferd", CHART, values=values)
    cluster.run("uninstall", "inferd")
    assert not any(cluster.api.store.objects.values())


@pytest.mark.parametrize("name", ["default", "short names"])
def test_kubectl_decodes_every_object(cluster: Cluster, name: str) -> None:
    if not KUBECTL.exists():
        pytest.skip("no kubectl: run `make tools`")
    done = subprocess.run(
        [KUBECTL, "apply", "--validate=false", "--kubeconfig", cluster.kubeconfig, "-f", "-"],
        input=cluster.helm.text(VALUE_SETS[name], name="y"),
        env=dict(cluster.helm.environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(cluster.names(DEPLOYMENTS)) == 1
