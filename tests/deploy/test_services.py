"""The Services, who they find, and what `helm test` asks."""

from __future__ import annotations

from tests.deploy.helm import VALUE_SETS, Helm, Object, Values


def services(helm: Helm, values: Values) -> dict[str, Object]:
    objects = helm.objects(values)
    return {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "Service"}


def finds(service: Object, labels: Object) -> bool:
    return bool(service["selector"].items() <= labels.items())


def test_the_service_leads_to_both_ports(helm: Helm) -> None:
    values = {"service": {"grpcPort": 80, "metricsPort": 90, "type": "NodePort"}}
    [service] = services(helm, values).values()
    assert service["type"] == "NodePort"
    assert service["ports"] == [
        {"name": "grpc", "port": 80, "targetPort": "grpc"},
        {"name": "metrics", "port": 90, "targetPort": "metrics"},
    ]


def test_a_headless_service_stands_beside_the_other_when_asked_for(helm: Helm) -> None:
    both = services(helm, VALUE_SETS["headless"])
    assert both["inferd"] == services(helm, {})["inferd"]
    assert both["inferd-headless"]["clusterIP"] == "None"
    assert list(services(helm, {})) == ["inferd"]


def test_the_services_find_the_servers_and_not_the_test_pod(helm: Helm) -> None:
    deployment = helm.object("Deployment", {})["spec"]
    server = deployment["template"]["metadata"]["labels"]
    test = helm.object("Pod", {})["metadata"]["labels"]
    for service in services(helm, VALUE_SETS["headless"]).values():
        assert service["selector"] == deployment["selector"]["matchLabels"]
        assert finds(service, server)
        assert not finds(service, test)


def test_two_releases_do_not_find_each_others_pods(helm: Helm) -> None:
    service = helm.object("Service", {}, "a")["spec"]
    other = helm.object("Deployment", {}, "b")["spec"]["template"]["metadata"]["labels"]
    assert not finds(service, other)


def test_the_test_pod_asks_the_service_for_its_health_and_a_prediction(helm: Helm) -> None:
    pod = helm.object("Pod", {"service": {"grpcPort": 80}})
    container, caller = pod["spec"]["containers"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert container["command"] == ["python", "-m", "inferd_server.probe"]
    assert container["args"] == ["--host", "inferd", "--port", "80"]
    assert caller["command"] == ["inferd", "infer"]
    assert caller["args"] == ["digits", "--input", "image=random", "--url", "inferd:80"]


def test_the_test_pod_makes_the_call_that_it_is_told(helm: Helm) -> None:
    values = {"modelRepository": {"existingClaim": "m"}, "testCall": ["own", "--input", "x=zeros"]}
    _, caller = helm.object("Pod", values)["spec"]["containers"]
    assert caller["args"][:3] == values["testCall"]
    [_] = helm.object("Pod", VALUE_SETS["claim"])["spec"]["containers"]


def test_with_certificates_it_asks_the_port_for_probes(helm: Helm) -> None:
    values = VALUE_SETS["secured"]
    [service] = services(helm, values).values()
    assert {"name": "probe", "port": 8003, "targetPort": "probe"} in service["ports"]
    [container] = helm.object("Pod", values)["spec"]["containers"]
    assert container["args"] == ["--host", "inferd", "--port", "8003"]


def test_the_account_is_made_or_taken_as_told(helm: Helm) -> None:
    def account(**values: object) -> str:
        return str(helm.pod({"serviceAccount": values})["serviceAccountName"])

    assert helm.object("ServiceAccount", {})["metadata"]["name"] == account() == "inferd"
    assert account(create=False) == "default"
    assert account(create=False, name="shared") == "shared"
    kinds = {each["kind"] for each in helm.objects({"serviceAccount": {"create": False}})}
    assert "ServiceAccount" not in kinds


def test_the_account_has_no_token_mounted(helm: Helm) -> None:
    assert helm.object("ServiceAccount", {})["automountServiceAccountToken"] is False
