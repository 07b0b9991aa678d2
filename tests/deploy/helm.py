"""The helm binary that `make tools` fetched, and what it renders of the chart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

Object = dict[str, Any]
Values = Mapping[str, Any]

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "inferd"
BINARY = ROOT / ".tools" / "helm"
KUBECTL = ROOT / ".tools" / "kubectl"

# One set of values for each thing that can be switched.
VALUE_SETS: dict[str, Values] = {
    "default": {},
    "gpu": {"gpu": {"enabled": True, "runtimeClassName": "nvidia"}},
    "several gpus": {"gpu": {"enabled": True, "count": 4, "nodeSelector": {"pool": "h100"}}},
    "mig": {"gpu": {"enabled": True, "migProfile": "1g.10gb"}},
    "dra": {
        "gpu": {
            "enabled": True,
            "count": 2,
            "dra": {
                "deviceClassName": "gpu.nvidia.com",
                "selectors": ["device.attributes['gpu.nvidia.com'].type == 'gpu'"],
            },
        }
    },
    "mig by dra": {
        "gpu": {
            "enabled": True,
            "migProfile": "1g.10gb",
            "dra": {"deviceClassName": "mig.nvidia.com"},
        },
        "modelRepository": {"existingClaim": "models"},
        "planStore": {"existingClaim": "plans"},
        "prebuild": {
            "gpuTypes": [{"name": "h100", "nodeSelector": {"pool": "h100"}}],
            "models": [{"path": "a/1/model.onnx"}],
        },
    },
    "plans": {
        "gpu": {"enabled": True},
        "planStore": {"existingClaim": "plans", "subPath": "rtx"},
    },
    "prebuild": {
        "gpu": {"enabled": True, "nodeSelector": {"pool": "gpu"}},
        "planStore": {"existingClaim": "plans"},
        "modelRepository": {"existingClaim": "models"},
        "prebuild": {
            "gpuTypes": [
                {"name": "l4", "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}},
                {"name": "a10", "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A10"}},
            ],
            "models": [
                {"path": "digits/1/model.onnx"},
                {"path": "resnet50/1/model.onnx", "flags": ["--precision", "fp16"]},
            ],
        },
    },
    "claim": {"modelRepository": {"existingClaim": "models", "subPath": "team/a"}},
    "image volume": {"modelRepository": {"image": {"reference": "r.test/models:1"}}},
    "fetched": {
        "modelRepository": {
            "fetch": {"image": "r.test/fetch:1", "args": ["--to", "/models"], "secret": "bucket"}
        }
    },
    "object store": {
        "modelRepository": {
            "storeUrl": "s3://models/store",
            "storeEndpoint": "http://s3.test:8333",
            "storeSecret": "bucket",
        }
    },
    "backup": {
        "modelRepository": {"storeUrl": "s3://models/store", "storeSecret": "bucket"},
        "backup": {"schedule": "0 3 * * *", "destination": "s3://backups/models", "secret": "b"},
    },
    "backup to a claim": {
        "modelRepository": {"existingClaim": "store"},
        "backup": {"schedule": "@daily", "existingClaim": "backups", "destination": "inferd"},
    },
    "headless": {"replicas": 3, "service": {"headless": {"enabled": True}}},
    "secured": {
        "security": {
            "tlsSecret": "inferd-tls",
            "clientCertificates": True,
            "identitiesSecret": "inferd-identities",
        }
    },
    "sealed": {
        "modelRepository": {"existingClaim": "models"},
        "security": {
            "modelKeysSecret": "keys",
            "modelKeys": ["new", "old"],
            "modelSignersSecret": "signers",
            "requireModels": "sealed",
        },
    },
    "redis": {"cache": {"redisUrl": "rediss://redis.test/0", "redisPasswordSecret": "redis"}},
    "tracing": {"tracing": {"url": "http://otlp.test:4318", "headersSecret": "otlp"}},
    "network policy": {
        "networkPolicy": {"enabled": True},
        "security": {"tlsSecret": "t"},
        "modelRepository": {"storeUrl": "gs://models/store"},
        "cache": {"redisUrl": "redis://redis.test:6380"},
        "tracing": {"url": "http://otlp.test:4318"},
    },
    "air-gapped": {
        "image": {"repository": "r.test/team/inferd", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
        "networkPolicy": {"enabled": True, "dns": []},
    },
    "grpc route": {
        "grpcRoute": {
            "enabled": True,
            "parentRefs": [{"name": "public", "namespace": "gateways", "sectionName": "grpc"}],
            "hostnames": ["inferd.test"],
        }
    },
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "inferd.test",
            "tlsSecret": "web",
            "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"},
        }
    },
    "ingress of any host": {"ingress": {"enabled": True}},
    "hpa": {"autoscaling": {"by": "hpa"}},
    "keda": {"autoscaling": {"by": "keda", "prometheusUrl": "http://p.test:9090"}},
    "pod monitor": {
        "metrics": {"podMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
        "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        "dashboard": {"enabled": True},
    },
    "service monitor": {
        "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}
    },
    "no account": {"serviceAccount": {"create": False}},
    "scheduled": {
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpread": {"whenUnsatisfiable": "DoNotSchedule"},
    },
    "extended": {
        "modelRepository": {"path": "/models"},
        "extraVolumes": [{"name": "fetched", "emptyDir": {"sizeLimit": "1Gi"}}],
        "extraVolumeMounts": [{"name": "fetched", "mountPath": "/models", "subPath": "a/b"}],
        "initContainers": [
            {
                "name": "fetch",
                "image": "fetcher:1",
                "args": ["--to", "/models"],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "64Mi"},
                    "limits": {"memory": "64Mi"},
                },
                "volumeMounts": [{"name": "fetched", "mountPath": "/models"}],
            }
        ],
        "envFrom": [{"secretRef": {"name": "tokens"}}],
    },
    "short names": {
        "fullnameOverride": "y",
        "extraEnv": [{"name": "N", "value": "n"}],
        "modelRepository": {"existingClaim": "n"},
        "gpu": {"enabled": True},
        "planStore": {"existingClaim": "y", "subPath": "on"},
        "prebuild": {
            "gpuTypes": [{"name": "n", "nodeSelector": {"y": "on"}}],
            "models": [{"path": "y"}],
        },
        "backup": {"schedule": "@daily", "existingClaim": "y"},
        "security": {
            "modelKeysSecret": "y",
            "modelKeys": ["n"],
            "modelSignersSecret": "y",
            "modelSigners": ["n"],
        },
        "networkPolicy": {"enabled": True},
        "grpcRoute": {"enabled": True, "parentRefs": [{"name": "y"}], "hostnames": ["n"]},
        "ingress": {"enabled": True, "className": "y", "host": "n", "tlsSecret": "on"},
        "nodeSelector": {"y": "on"},
        "podAnnotations": {"off": "y"},
        "settings": {"extra": {"n": "y", "rows": 1000000}},
    },
}

# What Kubernetes has not always had: a schema of an older one cannot know it.
SINCE = {"image volume": "1.33", "dra": "1.34", "mig by dra": "1.34"}

each_value_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=list(VALUE_SETS))


@dataclass(frozen=True)
class Helm:
    """Runs helm with its caches in a folder of the tests' own, and renders each values once."""

    binary: Path
    environment: Mapping[str, str]
    rendered: dict[str, str] = field(default_factory=dict, repr=False)

    def run(
        self, *arguments: str | Path, given: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run helm, whatever it exits with, and return what it wrote."""
        return subprocess.run(
            [self.binary, *arguments],
            input=given,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def template(
        self, values: Values, name: str = "inferd", chart: Path = CHART, kubernetes: str = "1.37"
    ) -> subprocess.CompletedProcess[str]:
        """Render a chart for a version of Kubernetes."""
        flags = ("--kube-version", kubernetes, "--values", "-")
        return self.run("template", name, chart, *flags, given=json.dumps(values))

    def text(self, values: Values, name: str = "inferd") -> str:
        """Return the manifests that values render to."""
        key = json.dumps([values, name])
        if key not in self.rendered:
            done = self.template(values, name)
            assert done.returncode == 0, done.stderr
            self.rendered[key] = done.stdout
        return self.rendered[key]

    def objects(self, values: Values, name: str = "inferd") -> list[Object]:
        """Return the objects that values render to."""
        text = self.text(values, name)
        return [document for document in yaml.load_all(text, yaml.CSafeLoader) if document]

    def object(self, kind: str, values: Values, name: str = "inferd") -> Object:
        """Return the one object of a kind."""
        [found] = [each for each in self.objects(values, name) if each["kind"] == kind]
        return found

    def pod(self, values: Values) -> Object:
        """Return the spec of the server's pods."""
        spec: Object = self.object("Deployment", values)["spec"]["template"]["spec"]
        return spec

    def pods(self, values: Values) -> list[Object]:
        """Return the specs of all pods: the server's, those of Jobs, and that of `helm test`."""
        specs = [each["spec"] for each in self.objects(values) if "spec" in each]
        jobs = [spec.get("jobTemplate", {}).get("spec", spec) for spec in specs]
        pods = [job.get("template", {}).get("spec", job) for job in jobs]
        return [pod for pod in pods if "containers" in pod]

    def settings(self, values: Values) -> Object:
        """Return the settings that the server will read."""
        data = [each["data"] for each in self.objects(values) if each["kind"] == "ConfigMap"]
        [text] = [files["inferd.yaml"] for files in data if "inferd.yaml" in files]
        settings: Object = yaml.safe_load(text)
        return settings
