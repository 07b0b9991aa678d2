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
    "plans without a size": {"planStore": {"sizeLimit": 0}},
    "plan store by hand": {"settings": {"extra": {"plan_store": "/tmp"}}},
    "plan store by the environment": {"extraEnv": [{"name": "INFERD_PLAN_STORE", "value": "/a"}]},
    "name that no object can have": {"fullnameOverride": "Inferd"},
    "annotation that is a number": {"podAnnotations": {"a": 1}},
    "probe that never ends": {"probes": {"startup": {"periodSeconds": 0}}},
    "affinity to what is none": {"affinity": {"nodeAfinity": {}}},
    "toleration of an unknown effect": {"tolerations": [{"effect": "NoRun"}]},
}


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
