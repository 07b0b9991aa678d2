"""Who reaches the pods and whom they reach: NetworkPolicy, GRPCRoute, Ingress."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.helm import VALUE_SETS, Helm, Object, Values

POLICY: Values = {"networkPolicy": {"enabled": True}}
DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def policy(helm: Helm, values: Values) -> Object:
    spec: Object = helm.object("NetworkPolicy", values)["spec"]
    return spec


def namespace(name: str) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}


def ports(rule: Object) -> list[Any]:
    return [each["port"] for each in rule["ports"]]


def test_the_policy_is_of_the_servers_pods_in_both_directions(helm: Helm) -> None:
    found = policy(helm, POLICY)
    selector = helm.object("Deployment", {})["spec"]["selector"]
    assert found["podSelector"] == selector
    assert found["policyTypes"] == ["Ingress", "Egress"]
    assert "NetworkPolicy" not in {each["kind"] for each in helm.objects({})}


def test_callers_reach_the_port_of_calls_and_the_monitoring_that_of_metrics(helm: Helm) -> None:
    callers = [namespace("shop") | {"podSelector": {"matchLabels": {"app": "cart"}}}]
    values = {"networkPolicy": {"enabled": True, "callers": callers}}
    shop, test, monitoring = policy(helm, values)["ingress"]
    assert (shop["from"], ports(shop)) == (callers, [8001])
    assert (monitoring["from"], ports(monitoring)) == ([namespace("monitoring")], [8002])
    labels = test["from"][0]["podSelector"]["matchLabels"]
    assert labels.items() <= helm.object("Pod", values)["metadata"]["labels"].items()
    assert ports(test) == [8001]


def test_nobody_calls_where_nobody_may(helm: Helm) -> None:
    values = {"networkPolicy": {"enabled": True, "callers": [], "monitoring": []}}
    [test] = policy(helm, values)["ingress"]
    assert test["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "test"


def test_with_certificates_the_port_for_probes_is_open_to_callers_too(helm: Helm) -> None:
    callers, test, _ = policy(helm, {**POLICY, "security": {"tlsSecret": "t"}})["ingress"]
    assert ports(callers) == ports(test) == [8001, 8003]


def test_pods_reach_nothing_but_dns_unless_values_name_more(helm: Helm) -> None:
    [dns] = policy(helm, POLICY)["egress"]
    assert dns == {"to": [namespace("kube-system")], "ports": DNS}
    assert not policy(helm, VALUE_SETS["air-gapped"])["egress"]


def test_pods_reach_the_services_that_values_name(helm: Helm) -> None:
    _, services = policy(helm, VALUE_SETS["network policy"])["egress"]
    assert services == {"ports": [{"port": 443}, {"port": 6380}, {"port": 4318}]}
    where = [namespace("data")]
    values = {**POLICY, "cache": {"redisUrl": "redis://a.test"}}
    values["networkPolicy"] = {"enabled": True, "services": where, "egress": [{"to": where}]}
    _, services, further = policy(helm, values)["egress"]
    assert services == {"to": where, "ports": [{"port": 6379}]}
    assert further == {"to": where}


@pytest.mark.parametrize(
    ("url", "endpoint", "port"),
    [
        ("s3://a/b", "", 443),
        ("s3://a/b", "http://s3.test:8333", 8333),
        ("s3://a/b", "http://s3.test", 80),
        ("az://a/b", "", 443),
    ],
)
def test_the_store_is_reached_on_its_port(helm: Helm, url: str, endpoint: str, port: int) -> None:
    values = {**POLICY, "modelRepository": {"storeUrl": url, "storeEndpoint": endpoint}}
    _, services = policy(helm, values)["egress"]
    assert ports(services) == [port]


def test_a_route_leads_from_the_gateway_to_the_service(helm: Helm) -> None:
    values = VALUE_SETS["grpc route"]
    route = helm.object("GRPCRoute", {**values, "service": {"grpcPort": 80}})
    assert route["spec"] == {
        "parentRefs": values["grpcRoute"]["parentRefs"],
        "hostnames": ["inferd.test"],
        "rules": [{"backendRefs": [{"name": "inferd", "port": 80}]}],
    }


def test_an_ingress_leads_to_the_port_of_calls(helm: Helm) -> None:
    ingress = helm.object("Ingress", VALUE_SETS["ingress"])
    service = {"name": "inferd", "port": {"name": "grpc"}}
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": service}}
    assert ingress["spec"] == {
        "ingressClassName": "nginx",
        "tls": [{"secretName": "web", "hosts": ["inferd.test"]}],
        "rules": [{"host": "inferd.test", "http": {"paths": [path]}}],
    }
    names = {port["name"] for port in helm.object("Service", {})["spec"]["ports"]}
    assert service["port"]["name"] in names
    any_host = helm.object("Ingress", VALUE_SETS["ingress of any host"])
    assert any_host["spec"] == {"rules": [{"http": {"paths": [path]}}]}
