"""The values: what is wrong is refused, and every one is described."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.deploy.helm import CHART, SINCE, VALUE_SETS, Helm, Object, Values

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
    "mount over a Secret": {
        "extraVolumeMounts": [{"name": "x", "mountPath": "/etc/inferd-model-keys"}]
    },
    "mount to nowhere": {"extraVolumeMounts": [{"name": "x", "mountPath": "x"}]},
    "volume of the chart's own name": {"extraVolumes": [{"name": "tmp", "emptyDir": {}}]},
    "volume of nothing": {"extraVolumes": [{"name": "x"}]},
    "first container without an image": {"initContainers": [{"name": "x"}]},
    "first container of the server's name": {"initContainers": [{"name": "inferd", "image": "a"}]},
    "environment from nothing": {"envFrom": [{}]},
    "parts of GPUs among the resources": {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}},
    "GPU that no node can have": {"gpu": {"resourceName": "gpu"}},
    "plans without a size": {"planStore": {"sizeLimit": 0}},
    "plan store by hand": {"settings": {"extra": {"plan_store": "/tmp"}}},
    "plan store by the environment": {"extraEnv": [{"name": "INFERD_PLAN_STORE", "value": "/a"}]},
    "name that no object can have": {"fullnameOverride": "Inferd"},
    "annotation that is a number": {"podAnnotations": {"a": 1}},
    "probe that never ends": {"probes": {"startup": {"periodSeconds": 0}}},
    "part of a GPU that is none": {"gpu": {"migProfile": "small"}},
    "store in a folder": {"modelRepository": {"storeUrl": "/models"}},
    "password in the URL": {"cache": {"redisUrl": "redis://:secret@redis.test"}},
    "key by a path": {"security": {"modelKeys": ["../key"]}},
    "models that need not be trusted": {"security": {"requireModels": "none"}},
    "schedule of words": {"backup": {"schedule": "every night"}},
    "backup out of the claim": {"backup": {"destination": "../all"}},
    "backups of which none is kept": {"backup": {"keepLast": 0}},
    "plan of no file": {"prebuild": {"models": [{"path": ""}]}},
    "GPU type anywhere": {"prebuild": {"gpuTypes": [{"name": "l4"}]}},
    "caller that is nobody": {"networkPolicy": {"callers": [{}]}},
    "gateway without a name": {"grpcRoute": {"parentRefs": [{}]}},
    "pods spread somehow": {"topologySpread": {"whenUnsatisfiable": "Maybe"}},
    "affinity to what is none": {"affinity": {"nodeAfinity": {}}},
    "toleration of an unknown effect": {"tolerations": [{"effect": "NoRun"}]},
}


GPU = {"enabled": True}
DRA = {"deviceClassName": "gpu.nvidia.com"}

# What no schema can tell, and the sentence that says so.
UNFIT: list[tuple[Values, str]] = [
    (
        {"modelRepository": {"existingClaim": "a", "path": "/b"}},
        "models come from one place, and here are 2: "
        "modelRepository.existingClaim, modelRepository.path",
    ),
    (
        {
            "modelRepository": {
                "storeUrl": "s3://a/b",
                "image": {"reference": "a:1"},
                "fetch": {"image": "b:1"},
            }
        },
        "here are 3: modelRepository.fetch.image, modelRepository.image.reference, "
        "modelRepository.storeUrl",
    ),
    ({"modelRepository": {"storeSecret": "a"}}, "modelRepository.storeUrl says which"),
    (
        {"gpu": {**GPU, "dra": DRA, "resourceName": "nvidia.com/gpu"}},
        "GPUs come by dynamic resource allocation or from a device plugin",
    ),
    (
        {"gpu": {**GPU, "migProfile": "1g.10gb", "resourceName": "nvidia.com/gpu"}},
        "the profile is part of the resource's name",
    ),
    ({"gpu": {**GPU, "dra": {"selectors": ["a"]}}}, "needs gpu.dra.deviceClassName"),
    ({"security": {"clientCertificates": True}}, "needs security.tlsSecret"),
    ({"security": {"requireModels": "sealed"}}, "no model could be opened"),
    ({"security": {"requireModels": "signed"}}, "no signature would count"),
    ({"cache": {"redisPasswordSecret": "a"}}, "needs cache.redisUrl"),
    ({"tracing": {"headersSecret": "a"}}, "needs tracing.url"),
    (
        {"metrics": {"podMonitor": {"enabled": True}, "serviceMonitor": {"enabled": True}}},
        "Prometheus would read every pod twice",
    ),
    ({"grpcRoute": {"enabled": True}}, "needs grpcRoute.parentRefs"),
    (
        {"prebuild": {"gpuTypes": [{"name": "l4", "nodeSelector": {"a": "b"}}]}},
        "prebuild.gpuTypes needs gpu.enabled, planStore.existingClaim, prebuild.models",
    ),
    ({"backup": {"schedule": "@daily", "destination": "s3://a"}}, "needs a store"),
    (
        {"backup": {"schedule": "@daily"}, "modelRepository": {"storeUrl": "s3://a/b"}},
        "needs one place for backups",
    ),
    (
        {
            "backup": {"schedule": "@daily", "destination": "s3://a/b", "existingClaim": "c"},
            "modelRepository": {"storeUrl": "s3://a/b"},
        },
        "needs one place for backups",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), UNFIT, ids=[text for _, text in UNFIT])
def test_what_does_not_fit_together_is_refused_with_a_sentence(
    helm: Helm, values: Values, sentence: str
) -> None:
    done = helm.template(values)
    assert done.returncode != 0
    assert sentence in done.stderr


@pytest.mark.parametrize(("name", "before"), [("image volume", "1.32"), ("dra", "1.33")])
def test_what_an_older_kubernetes_lacks_is_refused_there(
    helm: Helm, name: str, before: str
) -> None:
    done = helm.template(VALUE_SETS[name], kubernetes=f"{before}.9")
    assert done.returncode != 0
    assert f"needs Kubernetes {SINCE[name]} or later" in done.stderr


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
    inside = {"image", "service", "serviceAccount"}
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
