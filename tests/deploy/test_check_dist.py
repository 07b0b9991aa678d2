"""What `make dist` built is checked."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deploy.helm import ROOT
from tests.deploy.scripts import load_script

check_dist = load_script("check_dist")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_the_source_builds_the_same_wheel_and_the_wheel_works(
    dist: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert check_dist.main([str(dist)]) == 0, capfd.readouterr().err


def test_what_the_source_does_not_build_is_told() -> None:
    wheel = {"a.py": b"1", "b.py": b"2", "left_over.py": b""}
    source = {"a.py": b"1", "b.py": b"3", "missing.py": b""}
    told = check_dist.differences(wheel, source)
    assert [line.split()[0] for line in told] == ["b.py", "left_over.py", "missing.py"]


def test_a_wheel_that_does_not_start_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "inferd-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(broken, "w") as archive:
        archive.writestr("inferd/__main__.py", "raise SystemExit(3)")
    (problem,) = check_dist.started(broken, tmp_path / "venv")
    assert problem.startswith("inferd --version ended with 3")
