"""The pods: probes, security, drain, settings, GPUs, models."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from inferd_server.settings.sources import fields, load_settings

from tests.deploy.helm import VALUE_SETS, Helm, Values, each_value_set

GPU = "nvidia.com/gpu"
GPU_TOLERATION = {"key": GPU, "operator": "Exists", "effect": "NoSchedule"}


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
    for pod in helm.pods(values):
        security = pod["securityContext"]
        assert security["runAsNonRoot"] is True
        assert (security["runAsUser"], security["runAsGroup"]) == (10001, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"] + pod.get("initContainers", []):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


@each_value_set
def test_pods_get_nothing_of_the_cluster_they_did_not_ask_for(helm: Helm, values: Values) -> None:
    for pod in helm.pods(values):
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
        "max_connection_age_s": 300,
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


@pytest.mark.parametrize(
    "gpu", [{"migProfile": "1g.10gb"}, {"resourceName": "nvidia.com/mig-1g.10gb"}]
)
def test_a_part_of_a_gpu_is_taken_by_its_profile_or_its_name(helm: Helm, gpu: Values) -> None:
    [container] = helm.pod({"gpu": {"enabled": True, **gpu}})["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/mig-1g.10gb": 1, "memory": "2Gi"}


def test_gpus_by_dynamic_resource_allocation_are_claimed_and_no_limit(helm: Helm) -> None:
    values = VALUE_SETS["dra"]
    template, pod = helm.object("ResourceClaimTemplate", values), helm.pod(values)
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"memory": "2Gi"}
    assert container["resources"]["claims"] == [{"name": "gpu"}]
    [claim] = pod["resourceClaims"]
    assert claim == {"name": "gpu", "resourceClaimTemplateName": template["metadata"]["name"]}
    [request] = template["spec"]["spec"]["devices"]["requests"]
    asked = request["exactly"]
    assert (asked["deviceClassName"], asked["count"]) == ("gpu.nvidia.com", 2)
    [selector] = asked["selectors"]
    assert selector["cel"]["expression"] == values["gpu"]["dra"]["selectors"][0]


def test_other_devices_have_a_template_of_another_name(helm: Helm) -> None:
    def name(count: int) -> str:
        gpu = {"enabled": True, "count": count, "dra": {"deviceClassName": "gpu.nvidia.com"}}
        found = helm.object("ResourceClaimTemplate", {"gpu": gpu})["metadata"]["name"]
        return str(found)

    assert name(1) != name(2)


def test_a_part_of_a_gpu_is_claimed_by_its_profile(helm: Helm) -> None:
    found = helm.objects(VALUE_SETS["mig by dra"])
    template = next(each for each in found if each["kind"] == "ResourceClaimTemplate")
    asked = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    [selector] = asked["selectors"]
    assert asked["deviceClassName"] == "mig.nvidia.com"
    assert selector["cel"]["expression"] == (
        "device.attributes['gpu.nvidia.com'].profile == '1g.10gb'"
    )


def test_pods_are_spread_over_zones_and_nodes_by_revision(helm: Helm) -> None:
    spread = helm.pod({})["topologySpreadConstraints"]
    keys = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert [each["topologyKey"] for each in spread] == keys
    labels = helm.object("Deployment", {})["spec"]["selector"]
    for each in spread:
        assert each["labelSelector"] == labels
        assert each["matchLabelKeys"] == ["pod-template-hash"]
        assert each["whenUnsatisfiable"] == "ScheduleAnyway"
    assert "topologySpreadConstraints" not in helm.pod({"topologySpread": {"keys": []}})


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


@pytest.mark.parametrize("name", ["default", "plans", "object store", "sealed", "redis", "tracing"])
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


def test_models_come_in_an_image(helm: Helm) -> None:
    values = VALUE_SETS["image volume"]
    pod = helm.pod(values)
    image = {"reference": "r.test/models:1", "pullPolicy": "IfNotPresent"}
    assert {"name": "models", "image": image} in pod["volumes"]
    mount = {"name": "models", "mountPath": "/models", "readOnly": True}
    assert mount in pod["containers"][0]["volumeMounts"]
    assert helm.settings(values)["model_repository"] == "/models"


def test_models_are_fetched_before_the_server_starts(helm: Helm) -> None:
    values = VALUE_SETS["fetched"]
    pod = helm.pod(values)
    [first], [container] = pod["initContainers"], pod["containers"]
    assert (first["image"], first["args"]) == ("r.test/fetch:1", ["--to", "/models"])
    assert first["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert {"name": "models", "mountPath": "/models"} in first["volumeMounts"]
    mount = {"name": "models", "mountPath": "/models", "readOnly": True}
    assert mount in container["volumeMounts"]
    assert "envFrom" not in container
    assert {"name": "models", "emptyDir": {"sizeLimit": "8Gi"}} in pod["volumes"]
    assert helm.settings(values)["model_repository"] == "/models"


def test_models_come_from_a_store_with_credentials_of_a_secret(helm: Helm) -> None:
    values = VALUE_SETS["object store"]
    pod = helm.pod(values)
    [container] = pod["containers"]
    settings = helm.settings(values)
    assert (settings["model_store"], settings["store_cache"]) == ("s3://models/store", "/store")
    assert "model_repository" not in settings
    assert {"name": "store", "mountPath": "/store"} in container["volumeMounts"]
    assert {"name": "store", "emptyDir": {"sizeLimit": "8Gi"}} in pod["volumes"]
    assert container["env"] == [{"name": "AWS_ENDPOINT_URL", "value": "http://s3.test:8333"}]
    assert container["envFrom"] == [{"secretRef": {"name": "bucket"}}]


def test_keys_of_models_come_from_secrets(helm: Helm) -> None:
    values = VALUE_SETS["sealed"]
    settings = helm.settings(values)
    keys = [f"file:/etc/inferd-model-keys/{name}" for name in ("new", "old")]
    assert settings["model_keys"] == keys
    assert settings["model_signers"] == ["/etc/inferd-model-signers/public.pem"]
    assert settings["require_models"] == "sealed"
    assert secrets(helm, values) == {"model-keys": "keys", "model-signers": "signers"}


def test_redis_and_the_receiver_of_traces_are_told_secrets_by_files(helm: Helm) -> None:
    redis, tracing = (helm.settings(VALUE_SETS[name]) for name in ("redis", "tracing"))
    assert redis["cache_redis_url"] == "rediss://redis.test/0"
    assert redis["cache_redis_password_file"] == "/etc/inferd-redis/password"
    assert secrets(helm, VALUE_SETS["redis"]) == {"redis": "redis"}
    assert tracing["traces_to"] == "http://otlp.test:4318"
    assert tracing["trace_headers_file"] == "/etc/inferd-traces/headers"
    assert secrets(helm, VALUE_SETS["tracing"]) == {"traces": "otlp"}


@each_value_set
def test_the_chart_makes_no_secret(helm: Helm, values: Values) -> None:
    assert "Secret" not in {each["kind"] for each in helm.objects(values)}


def secrets(helm: Helm, values: Values) -> dict[str, str]:
    """Return the Secret of each volume, all of them mounted whole and read-only."""
    pod = helm.pod(values)
    found = {each["name"]: each["secret"] for each in pod["volumes"] if "secret" in each}
    mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
    for name, secret in found.items():
        # A part of a volume would never be renewed.
        whole = {"name": name, "mountPath": f"/etc/inferd-{name}", "readOnly": True}
        assert mounts[name] == whole
        assert secret["defaultMode"] == 0o440
    return {name: secret["secretName"] for name, secret in found.items()}


def test_certificates_and_identities_come_from_secrets_and_probes_get_a_port(helm: Helm) -> None:
    values = VALUE_SETS["secured"]
    pod = helm.pod(values)
    [container] = pod["containers"]
    expected = {"tls": "inferd-tls", "identities": "inferd-identities"}
    assert secrets(helm, values) == expected
    settings = helm.settings(values)
    assert settings["tls_certificate"] == "/etc/inferd-tls/tls.crt"
    assert settings["tls_private_key"] == "/etc/inferd-tls/tls.key"
    assert settings["tls_client_ca"] == "/etc/inferd-tls/ca.crt"
    assert settings["identities_file"] == "/etc/inferd-identities/identities.yaml"
    assert settings["probe_port"] == 8003
    assert {"name": "probe", "containerPort": 8003} in container["ports"]
    asked = [container[name]["grpc"]["port"] for name in container if name.endswith("Probe")]
    assert asked == [8003] * 3


@each_value_set
def test_the_settings_are_those_that_the_server_has(helm: Helm, values: Values) -> None:
    assert set(helm.settings(values)) - {"n", "rows"} <= set(fields())


def test_identities_need_no_certificates(helm: Helm) -> None:
    settings = helm.settings({"security": {"identitiesSecret": "s"}})
    assert "identities_file" in settings
    assert {"tls_certificate", "probe_port"}.isdisjoint(settings)


def test_a_digest_pins_the_image_and_else_the_tag_is_the_charts_version(helm: Helm) -> None:
    pinned = VALUE_SETS["air-gapped"]["image"]
    assert helm.pod(VALUE_SETS["air-gapped"])["containers"][0]["image"] == (
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
