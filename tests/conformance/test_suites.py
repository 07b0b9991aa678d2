"""What Triton's own tests expect, tried here: docs/triton.md tells counts and differences."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from .process import ServerProcess
from .suite_models import suite_models
from .tools import ROOT, TRITON_PYTHON, output, require

PAGE = (ROOT / "docs/triton.md").read_text()
SUITES = (
    *("infer", "zero_size", "variable", "texts", "batcher", "sequences", "lifecycle"),
    *("shared_memory", "cache", "statistics", "parameters"),
)
WHOLE_TIMEOUT_S = 300.0
# What the server is told, so that a model that is damaged on purpose does not keep it from serving.
FLAGS = ("--strict-readiness", "false", "--model-control", "on", "--canary-interval-s", "0")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A server with the models of the quick part, and their folder."""
    yield from served(suite_models(tmp_path_factory.mktemp("models"), quick=True))


@pytest.fixture(scope="module", params=["inline", "threads", "split"])
def whole(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Path]]:
    """The same with all models, in every arrangement."""
    folder = suite_models(tmp_path_factory.mktemp("models"), quick=False)
    yield from served(folder, "--processes", request.param)


def served(folder: Path, *flags: str) -> Iterator[tuple[str, Path]]:
    server = ServerProcess(folder, *FLAGS, *flags)
    try:
        port = server.wait_for("listening")["grpc_port"]
        server.wait_for("ready", WHOLE_TIMEOUT_S)
        yield f"127.0.0.1:{port}", folder
    finally:
        code = server.stop()
    assert code == 0


def tried(suite: str, server: tuple[str, Path], part: str) -> Mapping[str, str]:
    """Return "" or what happened instead, by what is expected."""
    python = str(require(TRITON_PYTHON))
    address, folder = server
    module = f"{__package__}.triton.suites.{suite}"
    lines = output(
        [python, "-m", module, address, part, str(folder)], timeout=WHOLE_TIMEOUT_S
    ).splitlines()
    return {found["case"]: found["result"] for found in map(json.loads, lines)}


def table(title: str) -> list[list[str]]:
    """Return the rows of the table below a title, without its head."""
    section = PAGE.split(f"### {title}\n")[1].split("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip(" *") for cell in line.strip("|").split("|")] for line in lines]


def differences(suite: str) -> set[str]:
    """Return what the page says is otherwise here, of a suite."""
    return {what for name, what, _ in table("What is otherwise here") if name == f"`{suite}`"}


def assert_as_told(suite: str, found: Mapping[str, str]) -> None:
    unmet = {name: text for name, text in found.items() if text}
    told = {name for name in found if name in differences(suite)}
    assert set(unmet) == told, unmet


@pytest.mark.parametrize("suite", SUITES)
def test_expectations_are_met_but_for_those_that_the_page_names(
    quick: tuple[str, Path], suite: str
) -> None:
    found = tried(suite, quick, "quick")
    assert found
    assert_as_told(suite, found)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", SUITES)
def test_the_page_counts_all_expectations(whole: tuple[str, Path], suite: str) -> None:
    found = tried(suite, whole, "all")
    assert_as_told(suite, found)
    counts = {name: [int(cell) for cell in cells] for name, *cells in table("Counts")}
    otherwise = len(differences(suite))
    assert counts[f"`{suite}`"] == [len(found), len(found) - otherwise, otherwise]


def test_every_difference_of_the_page_has_a_reason() -> None:
    rows = table("What is otherwise here")
    assert rows
    assert [row for row in rows if not re.fullmatch("`[a-z_]+`", row[0]) or not row[2]] == []


def test_the_counts_of_the_page_add_up() -> None:
    rows = table("Counts")
    assert [name.strip("`") for name, *_ in rows] == [*SUITES, "all"]
    numbers = [[int(cell) for cell in cells] for _, *cells in rows]
    assert [sum(column) for column in zip(*numbers[:-1], strict=True)] == numbers[-1]
