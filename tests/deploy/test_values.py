"""The values: what is wrong is refused, and every one is described."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy.helm import CHART, Helm, Object, Values

# Helm adds it to the values of a dependency; nobody sets it here.
INJECTED = {"global"}

WRONG: dict[str, Values] = {
    "misspelt": {"replica": 1},
    "misspelt deeper": {"gpu": {"enable": True}},
    "misspelt probe": {"probes": {"readyness": {}}},
    "number as text": {"replicas": "1"},
    "fewer pods than none": {"replicas": -1},
    "half a pod": {"replicas": 1.5},
    "switch as text": {"gpu": {"enabled": "true"}},
    "no GPU": {"gpu": {"enabled": True, "count": 0}},
    "GPUs among the resources": {"resources": {"limits": {"nvidia.com/gpu": 1}}},
    "amount without a unit that exists": {"resources": {"limits": {"memory": "2GB"}}},
    "unknown kind of service": {"service": {"type": "ExternalName"}},
    "port out of range": {"service": {"grpcPort": 65536}},
    "unknown log format": {"settings": {"logFormat": "xml"}},
    "unknown log level": {"settings": {"logLevel": "INFO"}},
    "negative drain": {"settings": {"drainDelaySeconds": -1}},
    "settings that the chart makes": {"settings": {"extra": {"grpc_port": 1}}},
    "settings under the chart's kind of name": {"settings": {"extra": {"maxRows": 1}}},
    "environment against the settings": {"extraEnv": [{"name": "INFERD_GRPC_PORT", "value": "1"}]},
    "environment that is a number": {"extraEnv": [{"name": "A", "value": 1}]},
    "environment without a value": {"extraEnv": [{"name": "A"}]},
    "digest that is none": {"image": {"digest": "latest"}},
    "pull policy of another case": {"image": {"pullPolicy": "always"}},
    "pull secret by name alone": {"imagePullSecrets": ["registry"]},
    "rollout that cannot go on": {"updateStrategy": {"maxSurge": 0, "maxUnavailable": "0%"}},
    "probes on the port of calls": {"security": {"tlsSecret": "t", "probePort": 8001}},
    "security that the chart makes": {"settings": {"extra": {"tls_client_ca": "/ca"}}},
    "path out of the volume": {"modelRepository": {"subPath": "/etc"}},
    "plans out of the volume": {"planStore": {"subPath": "/etc"}},
    "path out of the volume by dots": {"modelRepository": {"subPath": "a/../../b"}},
    "path of dots alone": {"planStore": {"subPath": ".."}},
    "mount out of the volume": {
        "extraVolumeMounts": [{"name": "x", "mountPath": "/x", "subPath": "../a"}]
    },
    "mount over the chart's own": {"extraVolumeMounts": [{"name": "x", "mountPath": "/tmp"}]},
    "mount to nowhere": {"extraVolumeMounts": [{"name": "x", "mountPath": "x"}]},
    "volume of the chart's own name": {"extraVolumes": [{"name": "tmp", "emptyDir": {}}]},
    "volume of nothing": {"extraVolumes": [{"name": "x"}]},
    "first container without an image": {"initContainers": [{"name": "x"}]},
    "first container of the server's name": {"initContainers": [{"name": "inferd", "image": "a"}]},
    "environment from nothing": {"envFrom": [{}]},
    "parts of GPUs among the resources": {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}},
    "GPU that no node can have": {"gpu": {"resourceName": "gpu"}},
    "two places of models": {"modelRepository": {"existingClaim": "a", "path": "/b"}},
    "plans without a size": {"planStore": {"sizeLimit": 0}},
    "plan store by hand": {"settings": {"extra": {"plan_store": "/tmp"}}},
    "plan store by the environment": {"extraEnv": [{"name": "INFERD_PLAN_STORE", "value": "/a"}]},
    "name that no object can have": {"fullnameOverride": "Inferd"},
    "annotation that is a number": {"podAnnotations": {"a": 1}},
    "probe that never ends": {"probes": {"startup": {"periodSeconds": 0}}},
    "affinity to what is none": {"affinity": {"nodeAfinity": {}}},
    "toleration of an unknown effect": {"tolerations": [{"effect": "NoRun"}]},
}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"service": {"grpcPort": 80, "metricsPort": 80}}, ("grpcPort", "metricsPort")),
        (
            {"security": {"tlsSecret": "t", "probePort": 9000}, "service": {"grpcPort": 9000}},
            ("probePort", "grpcPort"),
        ),
        (
            {"security": {"tlsSecret": "t", "probePort": 9000}, "service": {"metricsPort": 9000}},
            ("probePort", "metricsPort"),
        ),
    ],
)
def test_two_ports_that_are_one_are_refused(
    helm: Helm, values: Values, names: tuple[str, str]
) -> None:
    done = helm.template(values)
    assert done.returncode != 0
    assert "each needs a port of its own" in done.stderr
    assert all(name in done.stderr for name in names)


@pytest.mark.parametrize("path", ["a..b", "..a/b", "a/b..", "...", "a/.b"])
def test_dots_that_lead_nowhere_are_taken(helm: Helm, path: str) -> None:
    values = {"modelRepository": {"existingClaim": "c", "subPath": path}}
    assert helm.template(values).returncode == 0


@pytest.mark.parametrize("values", WRONG.values(), ids=list(WRONG))
def test_wrong_values_are_refused(helm: Helm, values: Values) -> None:
    done = helm.template(values)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_the_schema_describes_the_values_and_nothing_more() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(described(schema, schema)) - INJECTED == set(keys(values, schema, schema))


def test_every_value_at_the_top_is_explained() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    # Explained inside, or by the pod spec that has them under the same name.
    inside = {"image", "modelRepository", "service", "serviceAccount"}
    pod = {"podAnnotations", "nodeSelector", "tolerations", "affinity"}
    bare = {
        line.split(":")[0]
        for before, line in itertools.pairwise(lines)
        if line[:1].isalpha() and not before.startswith("#")
    }
    assert bare == inside | pod


def resolve(node: Object, schema: Object) -> Object:
    name = node.get("$ref", "").removeprefix("#/definitions/")
    return schema["definitions"][name] if name else node


def described(node: Object, schema: Object, path: str = "") -> Iterator[str]:
    """The path of every property."""
    for name, child in resolve(node, schema).get("properties", {}).items():
        yield path + name
        yield from described(child, schema, f"{path}{name}.")


def keys(values: Any, node: Object, schema: Object, path: str = "") -> Iterator[str]:
    """The path of every key, down to where the schema leaves the names to the user."""
    properties = resolve(node, schema).get("properties")
    if not isinstance(values, dict) or properties is None:
        return
    for name, child in values.items():
        yield path + name
        yield from keys(child, properties.get(name, {}), schema, f"{path}{name}.")
