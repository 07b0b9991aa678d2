"""The helm binary that `make tools` fetched, and what it renders of the chart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
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
    "gpu": {"gpu": {"enabled": True, "count": 2, "runtimeClassName": "nvidia"}},
    "plans": {
        "gpu": {"enabled": True},
        "planStore": {"existingClaim": "plans", "subPath": "rtx"},
    },
    "claim": {"modelRepository": {"existingClaim": "models", "subPath": "team/a"}},
    "headless": {"replicas": 3, "service": {"headless": {"enabled": True}}},
    "secured": {
        "security": {
            "tlsSecret": "inferd-tls",
            "clientCertificates": True,
            "identitiesSecret": "inferd-identities",
        }
    },
    "no account": {"serviceAccount": {"create": False}},
    "pinned": {
        "image": {"repository": "r.test/team/inferd", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "registry"}],
    },
    "scheduled": {
        "nodeSelector": {"pool": "a"},
        "tolerations": [{"key": "team", "operator": "Equal", "value": "a", "effect": "NoExecute"}],
        "affinity": {"podAntiAffinity": {}},
    },
    "mig": {"gpu": {"enabled": True, "resourceName": "nvidia.com/mig-1g.10gb"}},
    "extended": {
        "modelRepository": {"path": "/models"},
        "extraVolumes": [{"name": "fetched", "emptyDir": {"sizeLimit": "1Gi"}}],
        "extraVolumeMounts": [{"name": "fetched", "mountPath": "/models", "subPath": "a/b"}],
        "initContainers": [
            {
                "name": "fetch",
                "image": "fetcher:1",
                "args": ["--to", "/models"],
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
        "nodeSelector": {"y": "on"},
        "podAnnotations": {"off": "y"},
        "settings": {"extra": {"n": "y", "rows": 1000000}},
    },
}

each_value_set = pytest.mark.parametrize("values", VALUE_SETS.values(), ids=list(VALUE_SETS))


@dataclass(frozen=True)
class Helm:
    """Runs helm with its caches in a folder of the test's own."""

    binary: Path
    environment: Mapping[str, str]

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
        self, values: Values, name: str = "inferd", chart: Path = CHART
    ) -> subprocess.CompletedProcess[str]:
        """Render a chart."""
        return self.run("template", name, chart, "--values", "-", given=json.dumps(values))

    def text(self, values: Values, name: str = "inferd") -> str:
        """Return the manifests that values render to."""
        done = self.template(values, name)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def objects(self, values: Values, name: str = "inferd") -> list[Object]:
        """Return the objects that values render to."""
        return [document for document in yaml.safe_load_all(self.text(values, name)) if document]

    def object(self, kind: str, values: Values, name: str = "inferd") -> Object:
        """Return the one object of a kind."""
        [found] = [each for each in self.objects(values, name) if each["kind"] == kind]
        return found

    def pod(self, values: Values) -> Object:
        """Return the spec of the server's pods."""
        spec: Object = self.object("Deployment", values)["spec"]["template"]["spec"]
        return spec

    def settings(self, values: Values) -> Object:
        """Return the settings that the server will read."""
        settings: Object = yaml.safe_load(self.object("ConfigMap", values)["data"]["inferd.yaml"])
        return settings
