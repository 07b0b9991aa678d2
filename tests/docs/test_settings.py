"""Tables of settings have every name and default as the code has them, and examples are taken."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import grpc
import pytest
import yaml
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_server.models.config import ModelConfig
from inferd_server.security.identities_file import read_identities
from inferd_server.security.permissions import GRANTS, METHODS, Permission
from inferd_server.settings.model import EngineSettings, Settings
from inferd_server.settings.sources import fields, shown

from tests import models
from tests.server.sequences.test_served import reason
from tests.server.serving import Running, failure, infer_request, rows, running

from .pages import PAGES, blocks, section, tables

MIB = 1024**2
DEFAULTS = [
    (page, name, default)
    for page in PAGES
    for head, found in tables(PAGES[page])
    if list(head[:2]) == ["setting", "default"]
    for name, default, *_ in found
]


def told_default(text: str) -> str:
    """Return a default of a page as settings are shown: `256 MiB` is a number of bytes."""
    size = re.fullmatch(r"(\d+) MiB", text)
    return str(int(size[1]) * MIB) if size else text


def default(name: str) -> str:
    """Return the default of a setting as it is shown; numbers without a needless fraction."""
    value = getattr(getattr(Settings(), fields()[name][0]), name)
    return re.sub(r"\.0$", "", shown(value))


def test_there_are_tables_with_defaults() -> None:
    assert {page for page, *_ in DEFAULTS} >= {"health", "cache", "processes"}


@pytest.mark.parametrize(("page", "name", "text"), DEFAULTS)
def test_a_default_is_that_of_the_code(page: str, name: str, text: str) -> None:
    if text == "by the cores":
        text = "0"
    assert default(name.strip("`")) == told_default(text)


def test_model_yaml_has_the_names_of_the_page() -> None:
    ((_, found),) = tables(section("models", "model.yaml"))
    told = [name for cell, *_ in found for name in re.findall("`(.*?)`", cell)]
    assert sorted(told) == sorted(ModelConfig.model_fields)


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("max_queue_delay_ms", "the server's, 0"),
        ("max_queue_rows", "the server's, 1024"),
        ("max_queue_wait_ms", "the server's, 0: none is"),
        ("priority_head_start_ms", "100"),
        ("instances", "1"),
        ("versions", "`latest`"),
    ],
)
def test_the_page_tells_what_a_model_gets_without_a_setting(name: str, without: str) -> None:
    ((_, found),) = tables(section("models", "model.yaml"))
    (told,) = (cells[-1] for cells in found if cells[0] == f"`{name}`")
    assert told == without
    value = getattr(ModelConfig(), name)
    if value is None:
        assert told.startswith(f"the server's, {default(name)}")
    else:
        assert told.strip("`") == re.sub(r"\.0$", "", str(value))


def test_the_arrangements_of_the_page_are_those_of_the_setting() -> None:
    ((_, found), *_) = tables(PAGES["processes"])
    told = [cells[0].strip("`") for cells in found]
    annotation = EngineSettings.model_fields["processes"].annotation
    assert sorted(told) == sorted(typing.get_args(annotation))


def test_the_settings_that_security_bounds_are_settings() -> None:
    (found,) = (rows_ for head, rows_ in tables(PAGES["security"]) if head[1] == "bounds")
    told = [name for cell, *_ in found for name in re.findall("`(.*?)`", cell)]
    assert len(told) > 8
    assert set(told) <= set(fields())


def test_every_method_is_told_with_the_permission_that_it_takes() -> None:
    (found,) = (cells for head, cells in tables(PAGES["security"]) if head[0] == "permission")
    told = {cells[0].strip("`"): cells[1] for cells in found}
    assert told.keys() == {"none", *GRANTS}
    by_name = {path.rpartition("/")[2]: permission for path, permission in METHODS.items()}
    for name in re.findall("`(.*?)`", told["infer"]):
        assert by_name[name] is Permission.INFER
    for name in re.findall("`(.*?)`", told["none"]):
        assert by_name[name] is Permission.OPEN
    words = {"loading": "RepositoryModelLoad", "shared memory": "SystemSharedMemoryRegister"}
    words |= {"unloading": "RepositoryModelUnload", "log": "LogSettings"}
    for word, method in words.items():
        assert word in told["admin"]
        assert by_name[method] in GRANTS["admin"]


def test_the_identities_of_the_page_can_be_used(tmp_path: Path) -> None:
    (text,) = (block for block in blocks("security") if block.startswith("identities:"))
    path = tmp_path / "identities.yaml"
    path.write_text(text.replace("HASH", "a" * 64))
    assert read_identities(path)


@pytest.mark.parametrize(
    ("page", "name"),
    [("scheduling", "sequence"), ("cache", "response_cache"), ("feedback", "feedback")],
)
def test_the_model_settings_of_a_page_can_be_used(page: str, name: str) -> None:
    (text,) = (block for block in blocks(page) if block.startswith(f"{name}:"))
    config = ModelConfig.model_validate(yaml.safe_load(text))
    assert getattr(config, name) is not None


@pytest.mark.parametrize("page", PAGES)
def test_python_on_a_page_is_python(page: str) -> None:
    for text in re.findall(r"^```python\n(.*?)^```", PAGES[page], re.MULTILINE | re.DOTALL):
        compile(text, page, "exec")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> typing.Iterator[Running]:
    repository = models.repository(
        tmp_path_factory.mktemp("models"),
        {
            "scaled": {1: models.scale(2.0), 3: models.scale(4.0)},
            "priorities": models.scale(2.0),
        },
        {"scaled": "versions: all", "priorities": "priority_levels: 5"},
    )
    with running(repository) as server:
        yield server


def with_timeout(microseconds: int) -> ModelInferRequest:
    request = infer_request("scaled", rows(1.0))
    request.parameters["timeout"].int64_param = microseconds
    return request


def test_who_names_no_version_gets_the_highest_that_is_ready(served: Running) -> None:
    assert "names no version gets the highest one that is ready" in PAGES["models"]
    assert served.infer(infer_request("scaled", rows(1.0))).model_version == "3"


def test_a_timeout_of_0_is_none(served: Running) -> None:
    assert "a `timeout` of 0 is none" in PAGES["scheduling"]
    assert served.infer(with_timeout(0)).model_version == "3"


def test_a_request_that_is_late_has_the_reason_of_the_page(served: Running) -> None:
    assert "(reason `DEADLINE_PASSED`)" in PAGES["scheduling"]
    error = failure(lambda: served.infer(with_timeout(1)))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The latter, once it is known what a run costs.
    assert reason(error) in {"DEADLINE_PASSED", "DEADLINE_TOO_SHORT"}


def test_the_usual_priority_is_the_middle_one() -> None:
    assert "1, the middle one" in section("models", "model.yaml")
    assert [ModelConfig(priority_levels=n).usual_priority for n in (1, 3, 5)] == [1, 2, 3]
