"""What can be said of the Dockerfiles without building them; test_image.py builds them."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.deploy.helm import ROOT

CPU, GPU = (ROOT / f"Dockerfile.{name}" for name in ("cpu", "gpu"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = {
    package.partition("/")[0]
    for package in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
}


@pytest.fixture(params=[CPU, GPU], ids=["cpu", "gpu"])
def dockerfile(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def instructions(dockerfile: Path) -> list[list[str]]:
    """The instructions, a list of words each, with continued lines joined and comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [line.split() for line in joined.splitlines() if line]


def last(dockerfile: Path, name: str) -> list[str]:
    return [words for words in instructions(dockerfile) if words[0] == name][-1][1:]


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("no hadolint beside this Python: `make install`")
    done = subprocess.run(
        [hadolint, dockerfile], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_the_builders_choice_and_pinned_by_default(dockerfile: Path) -> None:
    first, *_ = instructions(dockerfile)
    assert first[0] == "ARG"
    name, image = first[1].split("=", 1)
    assert name == "BASE_IMAGE"
    assert re.fullmatch(r"[a-z/]+@sha256:[0-9a-f]{64}", image)
    # Every stage starts from it, or from one that does.
    stages = {words[1] for words in instructions(dockerfile) if words[0] == "FROM"}
    assert stages == {"${BASE_IMAGE}", "base"}


def test_no_registry_is_named(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert re.findall(r"https?://|\b[a-z0-9-]+\.(?:io|com|org|net|ai)\b", text) == []


def test_the_server_is_an_unprivileged_user_known_by_number(dockerfile: Path) -> None:
    assert last(dockerfile, "USER") == ["10001:10001"]


def test_the_server_gets_the_signal_itself(dockerfile: Path) -> None:
    assert last(dockerfile, "STOPSIGNAL") == ["SIGTERM"]
    assert last(dockerfile, "ENTRYPOINT") == ['["inferd"]']
    assert " ".join(last(dockerfile, "CMD")) == '["serve", "--host", "0.0.0.0"]'


def test_every_download_is_checked_against_its_hash(dockerfile: Path) -> None:
    runs = " && ".join(
        " ".join(words[1:]) for words in instructions(dockerfile) if words[0] == "RUN"
    )
    steps = [step for step in runs.split(" && ") if "bin/pip " in step]
    assert len(steps) >= 5
    for step in steps:
        # What was not downloaded is of this build: nothing is looked for anywhere.
        own = step.endswith((".whl", " ."))
        assert ("--no-deps" in step) if own else ("--require-hashes" in step)
        assert not step.endswith(".whl") or "--no-index" in step


def test_what_builds_is_left_behind(dockerfile: Path) -> None:
    stages = " ".join(" ".join(words) for words in instructions(dockerfile)).split("FROM ")
    final = stages[-1]
    assert "--from=build /opt/inferd /opt/inferd" in final
    assert "apt-get" not in final
    assert "g++" not in final
    assert final.count("COPY") == 1


def test_a_label_tells_the_license(dockerfile: Path) -> None:
    wanted = f'org.opencontainers.image.licenses="{PROJECT["project"]["license"]}"'
    assert wanted in last(dockerfile, "LABEL")


def test_both_images_have_what_operators_turn_on() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [each for name in ("monitoring", "tracing", "redis", "seal") for each in extras[name]]
    names = {pin.split("==")[0] for pin in pins("requirements/server.txt")}
    assert {each.split(">=")[0] for each in wanted} <= names


def test_the_locale_of_text_models_is_made_where_every_stage_has_it(dockerfile: Path) -> None:
    stages = " ".join(" ".join(words) for words in instructions(dockerfile)).split("FROM ")
    base = next(stage for stage in stages if stage.startswith("${BASE_IMAGE}"))
    assert "localedef -i en_US -f UTF-8 en_US" in base
    assert stages[-1].startswith("base ")


def test_pycuda_is_built_with_headers_no_newer_than_the_base() -> None:
    base = re.search(r"(\d+\.\d+)\.\d+-runtime-ubuntu", GPU.read_text())
    locked = (ROOT / "requirements/gpu-build.txt").read_text()
    headers = re.search(r"^nvidia-cuda-runtime==(\d+\.\d+)\.", locked, re.MULTILINE)
    assert base is not None
    assert headers is not None
    assert base[1] == headers[1]


def test_the_gpu_image_serves_with_the_packages_of_the_server() -> None:
    server, gpu = (pins(f"requirements/{name}.txt") for name in ("server", "gpu"))
    assert server < gpu
    assert {pin.split("==")[0] for pin in gpu - server} >= {"pycuda", "tensorrt-rtx-cu13-libs"}


def pins(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    return {line for line in lines if "==" in line and not line.startswith(" ")}


def test_the_requirements_and_sources_are_in_the_build_context() -> None:
    allowed = {line.removeprefix("!") for line in context_rules() if line.startswith("!")}
    copied = {
        source if source.startswith("scripts/") else Path(source).parts[0]
        for words in [*instructions(CPU), *instructions(GPU)]
        if words[0] == "COPY" and not words[1].startswith("--from")
        for source in words[1:-1]
    }
    assert copied >= SOURCES
    assert {each.replace("wheelhous[e]", "wheelhouse") for each in copied} == allowed
    assert context_rules()[0] == "*"


def context_rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]
