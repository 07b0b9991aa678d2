"""The runtime for KServe; its server answers the calls that the notes and `helm test` make."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest
import yaml
from inferd_client.cli import main as inferd

from tests.conformance.tools import BESIDE_PYTHON, require
from tests.deploy.helm import CHART, ROOT, Helm, Object
from tests.deploy.schemas import fault
from tests.server.lifecycle.process import ready_process

RUNTIME: Object = yaml.safe_load((ROOT / "helm/servingruntime.yaml").read_text())
# KServe's own classes refuse a field that they do not know, and what lacks one.
READ_RUNTIME = """
import json, sys
from kserve.models import V1alpha1ServingRuntimeSpec as Spec, V1alpha1SupportedModelFormat as Format
def read(kind, given):
    names = {outside: inside for inside, outside in kind.attribute_map.items()}
    return kind(**{names[name]: value for name, value in given.items()})
def takes(spec):
    try:
        formats = [read(Format, each) for each in spec["supportedModelFormats"]]
        return bool(read(Spec, spec | {"supportedModelFormats": formats}))
    except (KeyError, ValueError):
        return False
print(json.dumps([takes(spec) for spec in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a server with the arguments of the runtime, but on this host; yield its address."""
    [container] = RUNTIME["spec"]["containers"]
    models = ROOT / "server/inferd_server/shipped_models"
    given = [each.partition("=") for each in container["args"]]
    flags = {name: value for name, _, value in given} | {"--host": "127.0.0.1"}
    assert flags.pop("--model-repository") == "/mnt/models"
    words = [word for flag in flags.items() for word in flag]
    with ready_process(models, *words) as (_, where):
        yield f"127.0.0.1:{where['grpc_port']}"


def notes(helm: Helm, *flags: str) -> str:
    done = helm.run("install", "inferd", CHART, "--dry-run=client", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("NOTES:")[2]


def test_the_call_of_the_notes_gets_an_answer(
    helm: Helm, server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = [each for each in notes(helm).splitlines() if each.startswith("A first call:")]
    kubectl, _, call = line.partition("kubectl")[2].partition(" -- ")
    deployment = helm.object("Deployment", {})
    pod = deployment["spec"]["template"]["spec"]
    assert f"exec deploy/{deployment['metadata']['name']}" in kubectl
    assert f"-c {pod['containers'][0]['name']}" in kubectl
    command, *words = shlex.split(call)
    monkeypatch.setenv("INFERD_URL", server)
    assert (command, inferd(words)) == ("inferd", 0)
    assert "probabilities" in capsys.readouterr().out


def test_the_call_of_helm_test_gets_an_answer(helm: Helm, server: str) -> None:
    _, caller = helm.object("Pod", {})["spec"]["containers"]
    *words, address = caller["args"]
    assert address == "inferd:8001"
    assert inferd([caller["command"][1], *words, server]) == 0


def test_the_notes_promise_no_call_where_callers_need_more(helm: Helm) -> None:
    told = notes(helm, "--set", "security.tlsSecret=t,security.identitiesSecret=i")
    assert "Callers need TLS and a token or certificate of an identity" in told
    assert "first call" not in told
    assert "inferd models" in notes(helm, "--set", "modelRepository.existingClaim=m")


def test_kserve_takes_its_runtime_and_kubernetes_the_container_in_it() -> None:
    spec = RUNTIME["spec"]
    bare = {name: value for name, value in spec.items() if name != "containers"}
    done = subprocess.run(
        [require(BESIDE_PYTHON), "-c", READ_RUNTIME],
        input=json.dumps([spec, spec | {"misspelt": 1}, bare]),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == [True, False, False]
    pod = {"containers": spec["containers"], "volumes": spec["volumes"]}
    named = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    assert fault({**named, "spec": pod}) == ""


def test_the_runtime_is_of_this_version_and_as_safe_as_the_chart(helm: Helm) -> None:
    [container] = RUNTIME["spec"]["containers"]
    pod = helm.pod({})
    assert container["image"] == pod["containers"][0]["image"]
    assert container["command"] == pod["containers"][0]["command"]
    assert pod["containers"][0]["securityContext"].items() <= container["securityContext"].items()
