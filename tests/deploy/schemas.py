"""The schemas of the kinds that the chart makes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor
from pydantic import BaseModel, ValidationError

from tests.deploy.helm import ROOT, Object

OTHERS: Mapping[str, type[BaseModel]] = {
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
    "ScaledObject": ScaledObject,
    "ServiceMonitor": ServiceMonitor,
}
"""Kinds of operators, which Kubernetes itself does not have."""
KUBERNETES = "1.37"
"""The newest version with a schema at hand."""
NODE = ROOT / ".tools" / "node"
# It passes fields that it does not know.
CHECK_ROUTES = """
import { GRPCRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1";
import { readFileSync } from "node:fs";
const found = (route) => { try { new GRPCRoute(route).validate(); return ""; }
                           catch (error) { return error.message; } };
console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(found)));
"""


def fits(found: Object) -> bool:
    """Tell whether the model of an object's kind takes it; what it does not know, it drops."""
    try:
        taken = OTHERS[found["kind"]].model_validate(found)
    except ValidationError:
        return False
    return taken.model_dump(by_alias=True, exclude_unset=True, mode="json") == found


def fault(found: Object, version: str = KUBERNETES) -> str:
    """Return what the schema of an object's kind finds wrong in it, "" where that is nothing.

    Routes of gateways are left to `route_faults`, which checks many at once.
    """
    if found["kind"] == "GRPCRoute":
        return ""
    if found["kind"] in OTHERS:
        return "" if fits(found) else f"no {found['kind']}: {found}"
    try:
        kubernetes_validate.validate(found, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error)
    return ""


def route_faults(routes: Sequence[Object]) -> list[str]:
    """Return what the Gateway API's schema finds in each GRPCRoute, "" where that is nothing."""
    if shutil.which("node") is None or not (NODE / "node_modules/@kubernetes-models").exists():
        pytest.skip("no node with @kubernetes-models/gateway-api: run `make tools`")
    done = subprocess.run(
        ["node", "--input-type=module", "--eval", CHECK_ROUTES],
        cwd=NODE,
        input=json.dumps(routes),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    faults: list[str] = json.loads(done.stdout)
    return faults
