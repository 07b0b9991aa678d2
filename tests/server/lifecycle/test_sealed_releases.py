"""A served store of sealed models: added through the server, swapped, rolled back, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd.oip.v2.inference_pb2 import RepositoryIndexRequest
from inferd_client.client import Client
from inferd_client.errors import InvalidInput
from inferd_client.releases import NewRelease
from inferd_server.models.following import Follower
from inferd_store.adding import Sources, draft_of
from inferd_store.release import About
from inferd_store.store import Store, open_store

from tests import models
from tests.seal.sealing import Keys, make_keys
from tests.server.lifecycle.stores import FACTORS, check, following, models_of
from tests.server.serving import Running, infer_request, rows
from tests.store.releases import BY, CONTENTS


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def served(
    keys: Keys, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, Running, Follower]]:
    """Serve a store whose models must be sealed and signed; it is empty at first."""
    folder = tmp_path_factory.mktemp("served")
    store = open_store(str(folder / "store"), create=True)
    demanded = {**keys.settings, "model_store": store.address, "ready_without_models": "true"}
    with following(store, folder, **demanded) as (server, follower):
        yield store, server, follower


@pytest.fixture
def client(served: tuple[Store, Running, Follower]) -> Iterator[Client]:
    with Client(f"127.0.0.1:{served[1].port}", timeout=60) as made:
        yield made


def laid_out(root: Path, name: str, version: str) -> Path:
    return models.save(models.scale(FACTORS[version]), root / name / version / "model.onnx").parent


def answers(server: Running, model: str) -> str:
    return check(server.infer(infer_request(model, rows(7.0))), 7.0)


def test_sealed_releases_are_added_promoted_and_rolled_back_through_a_server(
    served: tuple[Store, Running, Follower], client: Client, keys: Keys, tmp_path: Path
) -> None:
    _, server, follower = served
    for version in ("1", "2"):
        sealed = keys.seal(laid_out(tmp_path, "m", version))
        added = client.releases.add("m", NewRelease(draft_of(sealed).files))
        assert added["version"] == int(version)
        client.releases.promote("m", version, "production", [])
        follower.look(models_of(server))
        assert answers(server, "m") == version
    client.releases.rollback("m", "production")
    follower.look(models_of(server))
    assert answers(server, "m") == "1"
    assert client.releases.version("m", "2")["sealed"] is True


def test_a_server_that_demands_seals_takes_no_release_without(
    served: tuple[Store, Running, Follower], client: Client, tmp_path: Path
) -> None:
    plain = laid_out(tmp_path, "plain", "1")
    with pytest.raises(InvalidInput, match="without which no model is taken here"):
        client.releases.add("plain", NewRelease(draft_of(plain).files))
    assert "plain" not in served[0].names()


def test_a_release_that_was_tampered_with_is_refused_and_the_one_before_serves(
    served: tuple[Store, Running, Follower], keys: Keys, tmp_path: Path
) -> None:
    store, server, follower = served
    for version in ("1", "2"):
        folder = keys.seal(laid_out(tmp_path, "t", version))
        if version == "2":
            # By somebody who may write to the store, so that all its digests are right.
            content = bytearray((folder / "model.onnx").read_bytes())
            content[-20] ^= 1
            (folder / "model.onnx").write_bytes(content)
        add_untried(store, "t", folder)
        store.move("t", "production", version, BY)
        follower.look(models_of(server))
    assert answers(server, "t") == "1"
    told = server.stub.RepositoryIndex(RepositoryIndexRequest()).models
    (why,) = [one.reason for one in told if (one.name, one.version) == ("t", "2")]
    assert "part 1 of model.onnx was changed" in why


def add_untried(store: Store, name: str, folder: Path) -> None:
    sources = Sources(draft_of(folder))
    release = sources.release(CONTENTS, About(), "2026-01-01T00:00:00.000+00:00")
    store.add(name, release, sources.files, BY)
