"""The pods: probes, security, drain, settings, GPUs, models."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from inferd_server.settings.sources import fields, load_settings

from tests.deploy.helm import VALUE_SETS, Helm, Object, Values, each_value_set

GPU = "nvidia.com/gpu"
GPU_TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


def pods(helm: Helm, values: Values) -> list[Object]:
    return [helm.pod(values), helm.object("Pod", values)["spec"]]


def test_readiness_asks_for_the_models_and_the_other_probes_for_the_process(helm: Helm) -> None:
    [container] = helm.pod({})["containers"]
    asked = {name: container[name]["grpc"] for name in container if name.endswith("Probe")}
    assert asked == {
        "startupProbe": {"port": 8001, "service": "liveness"},
        "readinessProbe": {"port": 8001, "service": ""},
        "livenessProbe": {"port": 8001, "service": "liveness"},
    }


@each_value_set
def test_pods_run_without_any_privilege(helm: Helm, values: Values) -> None:
    for pod in pods(helm, values):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["runAsGroup"]) == (10001, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


@each_value_set
def test_pods_get_nothing_of_the_cluster_they_did_not_ask_for(helm: Helm, values: Values) -> None:
    for pod in pods(helm, values):
        assert pod["automountServiceAccountToken"] is False
        # A Service named inferd would set INFERD_PORT=tcp://..., which the server reads.
        assert pod["enableServiceLinks"] is False


@pytest.mark.parametrize(
    ("delay", "timeout", "given", "grace"),
    [(5, 30, 0, 40), (0, 0, 0, 5), (60, 600, 0, 665), (5, 30, 36, 36)],
)
def test_a_pod_is_killed_only_after_both_drain_times(
    helm: Helm, delay: int, timeout: int, given: int, grace: int
) -> None:
    settings = {"drainDelaySeconds": delay, "drainTimeoutSeconds": timeout}
    values = {"settings": settings, "terminationGracePeriodSeconds": given}
    assert helm.pod(values)["terminationGracePeriodSeconds"] == grace
    assert helm.settings(values)["drain_delay_s"] == delay
    assert helm.settings(values)["drain_timeout_s"] == timeout


def test_a_grace_period_that_cuts_the_drain_short_is_refused(helm: Helm) -> None:
    done = helm.template({"terminationGracePeriodSeconds": 35})
    assert done.returncode != 0
    assert "must exceed settings.drainDelaySeconds + settings.drainTimeoutSeconds" in done.stderr


def test_the_server_reads_the_mounted_settings(helm: Helm) -> None:
    pod = helm.pod({})
    [container] = pod["containers"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert container["command"] == ["python", "-m", "inferd_server"]
    assert container["args"] == ["--config", f"{mounts['config']['mountPath']}/inferd.yaml"]
    assert volumes["config"]["configMap"] == {"name": "inferd"}
    assert volumes["tmp"] == {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}
    assert mounts["tmp"] == {"name": "tmp", "mountPath": "/tmp"}


def test_the_settings_listen_on_the_ports_that_the_pod_names(helm: Helm) -> None:
    [container] = helm.pod({})["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = helm.settings({"settings": {"logLevel": "debug", "extra": {"rows": 1000000}}})
    assert settings == {
        "host": "0.0.0.0",
        "grpc_port": ports["grpc"],
        "metrics_port": ports["metrics"],
        "drain_delay_s": 5,
        "drain_timeout_s": 30,
        "log_format": "json",
        "log_level": "debug",
        "rows": 1000000,
    }


def test_changed_settings_restart_the_pods_and_nothing_else_does(helm: Helm) -> None:
    def checksum(values: Values) -> str:
        metadata = helm.object("Deployment", values)["spec"]["template"]["metadata"]
        return str(metadata["annotations"]["checksum/config"])

    assert checksum({"settings": {"logLevel": "debug"}}) != checksum({})
    assert checksum({"replicas": 2}) == checksum({})


def test_the_gpu_switch_brings_devices_tolerations_and_runtime(helm: Helm) -> None:
    gpu = {"enabled": True, "count": 2, "nodeSelector": {"pool": "gpu"}, "runtimeClassName": "nv"}
    pod = helm.pod({"gpu": gpu, "tolerations": [{"key": "team"}], "nodeSelector": {"zone": "a"}})
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {GPU: 2, "memory": "2Gi"}
    assert pod["tolerations"] == [{"key": "team"}, GPU_TOLERATION]
    assert pod["nodeSelector"] == {"pool": "gpu", "zone": "a"}
    assert pod["runtimeClassName"] == "nv"


def test_a_part_of_a_gpu_is_taken_by_its_name(helm: Helm) -> None:
    [container] = helm.pod(VALUE_SETS["mig"])["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": 1, "memory": "2Gi"}


def test_the_pod_takes_volumes_first_containers_and_variables(helm: Helm) -> None:
    values = VALUE_SETS["extended"]
    pod = helm.pod(values)
    [container], [first] = pod["containers"], pod["initContainers"]
    assert container["envFrom"] == values["envFrom"]
    assert values["extraVolumes"][0] in pod["volumes"]
    assert values["extraVolumeMounts"][0] in container["volumeMounts"]
    assert helm.settings(values)["model_repository"] == "/models"
    given = values["initContainers"][0]
    assert {name: first[name] for name in given} == given
    assert first["securityContext"] == container["securityContext"]


def test_a_first_container_may_say_what_it_needs(helm: Helm) -> None:
    own = {"readOnlyRootFilesystem": False}
    container = {"name": "a", "image": "b", "securityContext": own}
    [first] = helm.pod({"initContainers": [container]})["initContainers"]
    assert first["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": False,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_that_tests_can_run_where_the_server_does(helm: Helm) -> None:
    gpu = {"enabled": True, "nodeSelector": {"pool": "gpu"}, "runtimeClassName": "nv"}
    values = {"gpu": gpu, "tolerations": [{"key": "team"}]}
    test = helm.object("Pod", values)["spec"]
    assert test["tolerations"] == helm.pod(values)["tolerations"]
    assert test["nodeSelector"] == {"pool": "gpu"}
    assert "runtimeClassName" not in test
    assert test["containers"][0]["resources"] == {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_nothing_of_a_gpu_is_there_without_the_switch(helm: Helm) -> None:
    unused = {"enabled": False, "nodeSelector": {"pool": "gpu"}, "runtimeClassName": "nv"}
    assert helm.pod({"gpu": unused}) == helm.pod({})
    assert {"nodeSelector", "tolerations", "runtimeClassName"}.isdisjoint(helm.pod({}))
    assert "nvidia" not in helm.text({})


def test_plans_are_kept_where_the_server_can_write_them(helm: Helm) -> None:
    pod = helm.pod(VALUE_SETS["plans"])
    claim = {"name": "plans", "persistentVolumeClaim": {"claimName": "plans"}}
    mount = {"name": "plans", "mountPath": "/plans", "subPath": "rtx"}
    assert claim in pod["volumes"]
    assert mount in pod["containers"][0]["volumeMounts"]
    assert helm.settings(VALUE_SETS["plans"])["plan_store"] == "/plans"


def test_plans_live_as_long_as_their_pod_without_a_claim(helm: Helm) -> None:
    values = {"gpu": {"enabled": True}, "planStore": {"sizeLimit": "2Gi"}}
    pod = helm.pod(values)
    assert {"name": "plans", "emptyDir": {"sizeLimit": "2Gi"}} in pod["volumes"]
    assert {"name": "plans", "mountPath": "/plans"} in pod["containers"][0]["volumeMounts"]


def test_there_is_no_plan_store_without_gpus(helm: Helm) -> None:
    values = {"planStore": {"existingClaim": "plans"}}
    assert helm.pod(values) == helm.pod({})
    assert "plan_store" not in helm.settings(values)


@pytest.mark.parametrize("name", ["default", "claim", "plans"])
def test_the_server_takes_its_settings(helm: Helm, tmp_path: Path, name: str) -> None:
    file = tmp_path / "inferd.yaml"
    file.write_text(yaml.safe_dump(helm.settings(VALUE_SETS[name])))
    settings = load_settings({"config": str(file)}, {})
    assert settings.engine.plan_store == ("/plans" if name == "plans" else "")


def test_models_come_from_a_claim_where_one_is_named(helm: Helm) -> None:
    values = VALUE_SETS["claim"]
    pod = helm.pod(values)
    claim = {"claimName": "models", "readOnly": True}
    mount = {"name": "models", "mountPath": "/models", "readOnly": True, "subPath": "team/a"}
    assert {"name": "models", "persistentVolumeClaim": claim} in pod["volumes"]
    assert mount in pod["containers"][0]["volumeMounts"]
    assert helm.settings(values)["model_repository"] == "/models"


def test_certificates_and_identities_come_from_secrets_and_probes_get_a_port(helm: Helm) -> None:
    values = VALUE_SETS["secured"]
    pod = helm.pod(values)
    [container] = pod["containers"]
    volumes = {volume["name"]: volume.get("secret") for volume in pod["volumes"]}
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    for name, secret in (("tls", "inferd-tls"), ("identities", "inferd-identities")):
        assert volumes[name] == {"secretName": secret, "defaultMode": 0o440}
        # A part of a volume would never be renewed.
        assert mounts[name].keys() == {"name", "mountPath", "readOnly"}
    tls, identities = (mounts[name]["mountPath"] for name in ("tls", "identities"))
    settings = helm.settings(values)
    assert settings["tls_certificate"] == f"{tls}/tls.crt"
    assert settings["tls_private_key"] == f"{tls}/tls.key"
    assert settings["tls_client_ca"] == f"{tls}/ca.crt"
    assert settings["identities_file"] == f"{identities}/identities.yaml"
    assert settings["probe_port"] == 8003
    assert {"name": "probe", "containerPort": 8003} in container["ports"]
    asked = [container[name]["grpc"]["port"] for name in container if name.endswith("Probe")]
    assert asked == [8003] * 3


def test_the_settings_of_security_are_those_that_the_server_has(helm: Helm) -> None:
    assert set(helm.settings(VALUE_SETS["secured"])) <= set(fields())


def test_identities_need_no_certificates_but_client_certificates_do(helm: Helm) -> None:
    settings = helm.settings({"security": {"identitiesSecret": "s"}})
    assert "identities_file" in settings
    assert {"tls_certificate", "probe_port"}.isdisjoint(settings)
    done = helm.template({"security": {"clientCertificates": True}})
    assert done.returncode != 0
    assert "security.clientCertificates needs security.tlsSecret" in done.stderr


def test_a_digest_pins_the_image_and_else_the_tag_is_the_charts_version(helm: Helm) -> None:
    pinned = VALUE_SETS["pinned"]["image"]
    assert helm.pod(VALUE_SETS["pinned"])["containers"][0]["image"] == (
        f"{pinned['repository']}@{pinned['digest']}"
    )
    assert helm.pod({"image": {"tag": "9"}})["containers"][0]["image"] == "inferd:9"
    assert helm.pod({})["containers"][0]["image"] == "inferd:0.1.0"


def test_environment_variables_are_passed_on(helm: Helm) -> None:
    secret = {"name": "T", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    variables = [{"name": "A", "value": "1"}, secret]
    assert helm.pod({"extraEnv": variables})["containers"][0]["env"] == variables


def test_a_rollout_keeps_every_pod_until_a_new_one_is_ready(helm: Helm) -> None:
    assert helm.object("Deployment", {})["spec"]["strategy"] == {
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    }
