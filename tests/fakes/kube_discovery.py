"""What a Kubernetes API server says of itself: its version, its resources, their OpenAPI."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# By group and version, as they stand in `apiVersion`: the plural name of each kind.
KINDS: dict[str, dict[str, str]] = {
    "v1": {
        "configmaps": "ConfigMap",
        "pods": "Pod",
        "secrets": "Secret",
        "serviceaccounts": "ServiceAccount",
        "services": "Service",
    },
    "apps/v1": {"deployments": "Deployment", "replicasets": "ReplicaSet"},
    "autoscaling/v2": {"horizontalpodautoscalers": "HorizontalPodAutoscaler"},
    "batch/v1": {"cronjobs": "CronJob", "jobs": "Job"},
    "gateway.networking.k8s.io/v1": {"grpcroutes": "GRPCRoute"},
    "keda.sh/v1alpha1": {"scaledobjects": "ScaledObject"},
    "monitoring.coreos.com/v1": {
        "podmonitors": "PodMonitor",
        "prometheusrules": "PrometheusRule",
        "servicemonitors": "ServiceMonitor",
    },
    "networking.k8s.io/v1": {"ingresses": "Ingress", "networkpolicies": "NetworkPolicy"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "resource.k8s.io/v1": {"resourceclaimtemplates": "ResourceClaimTemplate"},
}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def path_of(version: str) -> str:
    """Return the path of a group and version, without a slash before it."""
    return f"apis/{version}" if "/" in version else f"api/{version}"


def documents() -> dict[str, Json]:
    """Return what is answered at each path."""
    found: dict[str, Json] = {
        "version": {"major": "1", "minor": "37", "gitVersion": "v1.37.0"},
        "api": {"kind": "APIVersions", "versions": ["v1"]},
        "apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups()},
        "openapi/v3": {"paths": {path_of(version): openapi_path(version) for version in KINDS}},
    }
    for version in KINDS:
        found[path_of(version)] = resources(version)
        found[f"openapi/v3/{path_of(version)}"] = openapi(version)
    return found


def groups() -> list[Json]:
    """Return the groups, each of one version."""
    found = []
    for both in KINDS:
        name, _, version = both.rpartition("/")
        told = {"groupVersion": both, "version": version}
        if name:
            found.append({"name": name, "versions": [told], "preferredVersion": told})
    return found


def resources(version: str) -> Json:
    """Return the resources of a group and version."""
    listed = [
        {"name": name, "singularName": kind.lower(), "namespaced": True, "kind": kind}
        | {"verbs": VERBS}
        for name, kind in KINDS[version].items()
    ]
    return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}


def openapi_path(version: str) -> Json:
    """Return where the OpenAPI of a group and version is."""
    return {"serverRelativeURL": f"/openapi/v3/{path_of(version)}"}


def openapi(version: str) -> Json:
    """Return an OpenAPI in which every patch has `fieldValidation`, which helm looks for."""
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    group_name, _, number = version.rpartition("/")
    paths = {}
    for name, kind in KINDS[version].items():
        identity = {"group": group_name, "version": number, "kind": kind}
        patch = {"operationId": f"patch{kind}", "parameters": [parameter], "responses": {}}
        patch["x-kubernetes-group-version-kind"] = identity
        paths[f"/{path_of(version)}/namespaces/{{namespace}}/{name}/{{name}}"] = {"patch": patch}
    information = {"title": "Kubernetes", "version": "v1.37.0"}
    return {"openapi": "3.0.0", "info": information, "paths": paths, "components": {"schemas": {}}}
