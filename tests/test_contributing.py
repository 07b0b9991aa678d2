"""What those who carry the project on are told and given: targets, links, workflows, hooks."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
BIN = ROOT / ".venv/bin"
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PAGES = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md")]
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_commands_and_folders_of_the_page_are_there() -> None:
    page = PAGES[0].read_text()
    named = set(re.findall(r"make ([a-z-]+)", page))
    assert len(named) > 5
    assert named <= TARGETS
    folders = re.findall(r"^\| `([a-z_/]+)/`", page, re.MULTILINE)
    assert len(folders) > 5
    assert [folder for folder in folders if not (ROOT / folder).is_dir()] == []


def test_every_folder_of_the_project_is_explained() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if tracked.returncode:
        pytest.skip("this is no clone")
    folders = {line.partition("/")[0] for line in tracked.stdout.splitlines() if "/" in line}
    plain = {"docs", "examples", "requirements", "scripts"}
    unexplained = {name for name in folders - plain if not name.startswith(".")}
    page = PAGES[0].read_text()
    assert {name for name in unexplained if f"`{name}/" not in page} == set()


def test_workflows_are_valid() -> None:
    assert [path.name for path in WORKFLOWS] == ["release.yml", "test.yml"]
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, *WORKFLOWS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_there_is_with_few_rights(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            # A tag can be moved to other code.
            assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}"))
            command = step.get("run", "")
            named = set(re.findall(r"^make ([a-z-]+)", command, re.MULTILINE))
            assert named <= TARGETS
        targets = job.get("strategy", {}).get("matrix", {}).get("target", [])
        assert set(targets) <= TARGETS


def test_hooks_run_the_tools_of_this_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repository in config["repos"] for hook in repository["hooks"]]
    assert {repository["repo"] for repository in config["repos"]} == {"local"}
    for hook in hooks:
        assert {"id", "name", "language", "entry"} <= hook.keys()
        tool = hook["entry"].split()[0]
        assert (ROOT / tool).exists(), tool


def test_the_chart_has_the_version_of_the_package() -> None:
    (version,) = re.findall(
        r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert yaml.safe_load((ROOT / "helm/inferd/Chart.yaml").read_text())["appVersion"] == version
