"""Links in the repository: followed within it, and into folders that a setting names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import onnx
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_server.batching.inline import InlineLoop

from tests import models
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running,
    running_split,
)

Serve = Callable[..., AbstractContextManager[Running]]
FILE, WEIGHTS = "model.onnx", "model.onnx_data"


def inline(folder: Path, **settings: object) -> AbstractContextManager[Running]:
    return running(folder, inline=InlineLoop(lambda: 0.0), **settings)


ARRANGEMENTS: dict[str, Serve] = {"inline": inline, "threads": running, "split": running_split}


def as_in_a_hub(version: Path, blobs: Path) -> None:
    """Save a model whose files are links to blobs, as caches of model hubs lay them out."""
    version.mkdir(parents=True)
    blobs.mkdir(exist_ok=True)
    proto = models.no_batch()
    onnx.save(proto, version / FILE, save_as_external_data=True, location=WEIGHTS, size_threshold=0)
    for name in (FILE, WEIGHTS):
        blob = (version / name).rename(blobs / f"{version.parent.name}-{name}")
        (version / name).symlink_to(blob)


def only(version: Path, name: str, elsewhere: Path) -> None:
    """Make a model of which one file is a link."""
    as_in_a_hub(version, elsewhere)
    for each in {FILE, WEIGHTS} - {name}:
        (version / each).resolve().rename(version / each)


def request(name: str) -> ModelInferRequest:
    return infer_request(name, {"INPUT0": rows(1.0, 1.0, 1.0)["INPUT0"]})


def reason(server: Running, name: str) -> str:
    index = server.stub.RepositoryIndex(oip.RepositoryIndexRequest(), timeout=PATIENCE)
    (found,) = (model for model in index.models if model.name == name)
    return found.reason


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_links_are_followed_within_the_repository_and_where_a_setting_allows(
    tmp_path: Path, arrangement: str
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    as_in_a_hub(repository / "within" / "1", repository / ".blobs")
    as_in_a_hub(repository / "allowed" / "1", tmp_path / "hub")
    only(repository / "model" / "1", FILE, tmp_path / "elsewhere")
    only(repository / "weights" / "1", WEIGHTS, tmp_path / "elsewhere")
    with ARRANGEMENTS[arrangement](
        repository, link_folders=tmp_path / "hub", strict_readiness=False
    ) as server:
        for name in ("within", "allowed"):
            assert arrays(server.infer(request(name)))["OUTPUT0"].tolist() == [[4.0, 4.0]] * 3
        for name, file in (("model", FILE), ("weights", WEIGHTS)):
            link = repository / name / "1" / file
            assert reason(server, name) == (
                f"{link} is a link to {link.resolve()}, outside the model repository; link_folders "
                "names other folders that links may lead into"
            )
            server.refused(request(name))


@pytest.mark.parametrize("linked", ["m", "m/1"])
def test_a_folder_that_is_linked_into_the_repository_counts_with_all_that_is_in_it(
    tmp_path: Path, linked: str
) -> None:
    version = tmp_path / "elsewhere" / "m" / "1"
    as_in_a_hub(version, version / "blobs")
    link = tmp_path / "models" / linked
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / "elsewhere" / linked)
    with running(tmp_path / "models") as server:
        assert arrays(server.infer(request("m")))["OUTPUT0"].tolist() == [[4.0, 4.0]] * 3


def test_a_single_file_may_be_a_link_whose_weights_lie_where_it_leads(tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshots" / "abc"
    as_in_a_hub(snapshot, tmp_path / "blobs")
    with running(snapshot / FILE) as server:
        assert arrays(server.infer(request("model")))["OUTPUT0"].tolist() == [[4.0, 4.0]] * 3


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    version = tmp_path / "m" / "1"
    as_in_a_hub(version, tmp_path / ".blobs")
    (version / WEIGHTS).resolve().unlink()
    with running(tmp_path) as server:
        assert WEIGHTS in reason(server, "m")
