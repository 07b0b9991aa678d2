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
from tests.server.lifecycle.test_releases import ARRANGEMENTS, load
from tests.server.serving import Running, infer_request, rows, running_processes
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


def test_sealed_releases_are_added_promoted_swapped_and_rolled_back(
    served: tuple[Store, Running, Follower], client: Client, keys: Keys, tmp_path: Path
) -> None:
    store, server, follower = served
    first, second = (keys.seal(laid_out(tmp_path, "m", version)) for version in ("1", "2"))
    added = client.releases.add("m", NewRelease(draft_of(first).files))
    assert client.releases.promote("m", str(added["version"]), "production", [])["version"] == 1
    follower.look(models_of(server))
    assert answers(server, "m") == "1"
    add_untried(store, "m", second)
    client.releases.move("m", "production", "2")
    follower.look(models_of(server))
    assert answers(server, "m") == "2"
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


@pytest.mark.slow
@pytest.mark.parametrize("arrangement", ["split", "replicas"])
def test_processes_follow_a_store_of_sealed_models(
    keys: Keys, tmp_path: Path, arrangement: str
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    for version in ("1", "2"):
        add_untried(store, "m", keys.seal(laid_out(tmp_path, "m", version)))
    store.move("m", "production", "1", BY)
    flags = {**keys.settings, "store_poll_s": 0.05}
    with running_processes(tmp_path / "store", ARRANGEMENTS[arrangement], **flags) as server:
        for change, version in (
            (lambda: store.move("m", "production", "2", BY), "2"),
            (lambda: store.rollback("m", "production", BY), "1"),
        ):
            change()
            with load(server) as under:
                under.await_version(version)


def add_untried(store: Store, name: str, folder: Path) -> None:
    sources = Sources(draft_of(folder))
    release = sources.release(CONTENTS, About(), "2026-01-01T00:00:00.000+00:00")
    store.add(name, release, sources.files, BY)
