"""One server for the whole folder, and the results of each script of cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import models

from .process import ServerProcess
from .tools import TRITON_PYTHON, output, require

NUMBERS = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP32", "FP64"),
)
Results = Callable[[str], Any]


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models by what is asked of them; those that a test changes are used by that test alone."""
    return models.repository(
        tmp_path_factory.mktemp("repository"),
        {
            "simple": models.add_sub(),
            "numbers": models.identity(*NUMBERS, dims=("batch", 2)),
            # Apart, because they have no typed contents.
            "halves": models.identity("FP16", "BF16", dims=("batch", 2)),
            "strings": models.strings(),
            "joined": models.joined(),
            "animals": models.identity("FP32", dims=("batch", 4)),
            "versions": {1: models.scale(2.0), 2: models.scale(3.0)},
            "fixed": models.no_batch(),
            "large": models.free_dims(),
            "counted": models.scale(1.0),
            "reloaded": models.scale(1.0),
            "summing": models.summing("INT32", ("batch", 1)),
            "summing_strings": models.summing("INT32", ("batch", 1)),
            "images": models.image_classes(),
            "bytes": models.identity("INT8", dims=("batch", 16)),
        },
        yaml={
            "summing": models.SUMMING,
            "summing_strings": models.SUMMING,
            "images": "{format: {INPUT0: NCHW}, labels: {OUTPUT0: [red, green, blue]}}",
            "animals": "labels: {OUTPUT0: [cat, dog, fox, owl]}",
            "versions": "versions: all",
        },
    )


@pytest.fixture(scope="session")
def address(repository: Path) -> Iterator[str]:
    """The address of a running server that is ready; it must end well, too."""
    yield from serving(repository)


@pytest.fixture(scope="session")
def split_address(repository: Path) -> Iterator[str]:
    """The same of a server of several processes."""
    yield from serving(repository, "--processes", "split", "--fronts", "2")


def serving(repository: Path, *flags: str) -> Iterator[str]:
    """Yield the address of a server while it serves."""
    server = ServerProcess(repository, *flags)
    try:
        port = server.wait_for("listening")["grpc_port"]
        server.wait_for("ready")
        yield f"127.0.0.1:{port}"
    finally:
        code = server.stop()
    assert code == 0


@pytest.fixture(scope="module")
def triton(request: pytest.FixtureRequest, repository: Path) -> Results:
    """What the cases of a module of `triton/` gave, by name; TRITON names the module."""
    return results(request.module.TRITON, request.getfixturevalue("address"), str(repository))


def results(module: str, address: str, repository: str) -> Results:
    """Run the cases of a module against a server, and return what each gave."""
    python = require(TRITON_PYTHON)
    command = [str(python), "-m", f"{__package__}.triton.{module}", address, repository]
    cases = {case.pop("case"): case for case in map(json.loads, output(command).splitlines())}

    def result(name: str) -> Any:
        assert "error" not in cases[name], cases[name]["error"]
        return cases[name]["result"]

    return result
