"""What checkov calls unwise in the manifests of the chart: mended, or excused with a reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.conformance.tools import TOOLS, require
from tests.deploy.helm import ROOT, VALUE_SETS, Helm

EXCUSED = {
    "CKV_K8S_8": "the pod of `helm test` ends by itself; the server has a liveness probe",
    "CKV_K8S_9": "the same, of readiness",
    "CKV_K8S_11": "a limit of the processor stops threads in the middle of a batch",
    "CKV_K8S_15": "tags of releases do not move, and a node without the registry must start pods",
    "CKV_K8S_21": "helm says which namespace it is",
    "CKV_K8S_35": "clients of object storage take credentials from the environment alone",
    "CKV_K8S_43": "image.digest pins the image, which has none before it is in a registry",
    "CKV2_K8S_6": "networkPolicy.enabled is off by default: who calls is not known to the chart",
}
NOT_ON_SERVERS = {"CKV_K8S_8", "CKV_K8S_9", "CKV2_K8S_6"}


@pytest.mark.slow
def test_what_checkov_finds_is_excused_and_every_excuse_is_needed(
    helm: Helm, tmp_path: Path
) -> None:
    checkov = require(TOOLS / "checkov/bin/checkov")
    for number, values in enumerate(VALUE_SETS.values()):
        (tmp_path / f"{number}.yaml").write_text(helm.text(values))
    flags = ("--quiet", "--compact", "--skip-download", "--framework", "kubernetes")
    done = subprocess.run(
        [checkov, *flags, "--output", "json", "--directory", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 1000
    found = {(each["check_id"], each["resource"]) for each in report["results"]["failed_checks"]}
    assert {check for check, _ in found} == set(EXCUSED)
    servers = {check for check, resource in found if resource.startswith("Deployment.")}
    assert servers.isdisjoint(NOT_ON_SERVERS)
