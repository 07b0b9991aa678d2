"""The Jobs that build plans and the CronJob that makes backups: what they run is run here, too."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

from inferd_client.cli import main as inferd
from inferd_engines.tensorrt import command as build

from tests.deploy.helm import ROOT, VALUE_SETS, Helm, Object, Values

DIGITS = ROOT / "server/inferd_server/shipped_models/digits/1"


def jobs(helm: Helm, values: Values) -> dict[str, Object]:
    found = [each for each in helm.objects(values) if each["kind"] == "Job"]
    return {each["metadata"]["name"]: each for each in found}


def test_a_job_builds_every_plan_on_each_type_of_gpu_before_the_rest(helm: Helm) -> None:
    found = jobs(helm, VALUE_SETS["prebuild"])
    assert set(found) == {"inferd-plans-l4", "inferd-plans-a10"}
    for job in found.values():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        pod = job["spec"]["template"]["spec"]
        [first], [last] = pod["initContainers"], pod["containers"]
        assert first["command"] == last["command"] == ["inferd", "build"]
        assert first["args"] == ["/models/digits/1/model.onnx", "--output=/plans"]
        assert last["args"] == [
            "/models/resnet50/1/model.onnx",
            "--output=/plans",
            "--precision",
            "fp16",
        ]
        for container in (first, last):
            assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
            mounts = {mount["name"] for mount in container["volumeMounts"]}
            assert mounts == {"tmp", "models", "plans"}
    l4 = found["inferd-plans-l4"]["spec"]["template"]["spec"]["nodeSelector"]
    assert l4 == {"nvidia.com/gpu.product": "NVIDIA-L4", "pool": "gpu"}


def test_models_are_fetched_before_plans_of_them_are_built(helm: Helm) -> None:
    values = VALUE_SETS["prebuild"] | {"modelRepository": {"fetch": {"image": "r.test/fetch:1"}}}
    for job in jobs(helm, values).values():
        pod = job["spec"]["template"]["spec"]
        names = [each["name"] for each in (*pod["initContainers"], *pod["containers"])]
        assert names == ["fetch-models", "build-0", "build-1"]
        assert {"name": "models", "emptyDir": {"sizeLimit": "8Gi"}} in pod["volumes"]


def test_the_command_that_builds_takes_its_arguments(helm: Helm) -> None:
    parser = ArgumentParser()
    build.configure(parser)
    for job in jobs(helm, VALUE_SETS["prebuild"]).values():
        [container] = job["spec"]["template"]["spec"]["containers"]
        given = parser.parse_args(container["args"])
        assert (given.output, given.precision) == (Path("/plans"), "fp16")


def test_the_services_and_the_budget_do_not_count_jobs_as_servers(helm: Helm) -> None:
    selector = helm.object("Deployment", {})["spec"]["selector"]["matchLabels"]
    [cron] = [each for each in helm.objects(VALUE_SETS["backup"]) if each["kind"] == "CronJob"]
    templates = [job["spec"]["template"] for job in jobs(helm, VALUE_SETS["prebuild"]).values()]
    for template in (*templates, cron["spec"]["jobTemplate"]["spec"]["template"]):
        assert not selector.items() <= template["metadata"]["labels"].items()


def test_jobs_have_a_claim_for_gpus_of_their_own_which_goes_with_them(helm: Helm) -> None:
    values = VALUE_SETS["mig by dra"]
    found = [each for each in helm.objects(values) if each["kind"] == "ResourceClaimTemplate"]
    own = next(each for each in found if each["metadata"]["name"].endswith("-build"))
    [job] = jobs(helm, values).values()
    [claim] = job["spec"]["template"]["spec"]["resourceClaims"]
    assert claim["resourceClaimTemplateName"] == own["metadata"]["name"]
    assert int(own["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0
    assert "hook-succeeded" in own["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert len({each["metadata"]["name"] for each in found}) == 2


def cron_pod(helm: Helm, values: Values) -> Object:
    cron = helm.object("CronJob", values)["spec"]
    assert cron["concurrencyPolicy"] == "Forbid"
    pod: Object = cron["jobTemplate"]["spec"]["template"]["spec"]
    return pod


def test_a_backup_goes_before_old_ones_are_removed(helm: Helm) -> None:
    pod = cron_pod(helm, VALUE_SETS["backup"])
    [backup], [prune] = pod["initContainers"], pod["containers"]
    place = "s3://backups/models"
    assert backup["command"] + backup["args"] == [
        *("inferd", "models", "backup", place, "--store=s3://models/store")
    ]
    assert prune["command"] + prune["args"] == [
        *("inferd", "models", "backups", place, "--keep-last=7", "--keep-days=30", "--apply")
    ]
    for container in (backup, prune):
        assert container["envFrom"] == [{"secretRef": {"name": "b"}}]


def test_the_commands_of_the_backup_do_what_they_say(helm: Helm, tmp_path: Path) -> None:
    pod = cron_pod(helm, VALUE_SETS["backup to a claim"])
    [backup], [prune] = pod["initContainers"], pod["containers"]
    store, backups = tmp_path / "store", tmp_path / "backups"
    folders = {"models": store, "backups": backups}
    places = {
        m["mountPath"]: folders[m["name"]] for m in backup["volumeMounts"] if m["name"] in folders
    }
    assert inferd(["models", "add", "digits", str(DIGITS), "--store", str(store)]) == 0
    for container in (backup, prune):
        command, *words = container["command"] + container["args"]
        for inside, outside in places.items():
            words = [word.replace(inside, str(outside)) for word in words]
        assert (command, inferd(words)) == ("inferd", 0)
    assert len(list((backups / "inferd/backups").iterdir())) == 1
