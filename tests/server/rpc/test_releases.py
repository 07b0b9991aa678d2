"""The releases of a followed store, read and changed through the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from inferd_client.cli import main
from inferd_client.client import Client
from inferd_client.errors import InvalidInput, NotFound, PermissionDenied, Unimplemented
from inferd_store.store import Store

from tests import models
from tests.server.lifecycle.stores import following, store_of
from tests.server.serving import Running, running
from tests.store.releases import BY, add


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Running]]:
    folder = tmp_path_factory.mktemp("served")
    store = store_of(folder)
    place = {
        "model_store": store.address,
        "store_cache": folder / "cache",
        "store_backups": folder / "backups",
    }
    with following(store, folder, **place) as (server, _):
        yield store, server


@pytest.fixture
def client(served: tuple[Store, Running]) -> Iterator[Client]:
    with Client(f"127.0.0.1:{served[1].port}", timeout=60) as made:
        yield made


def test_what_a_store_has_is_told_to_others(served: tuple[Store, Running], client: Client) -> None:
    (found,) = [one for one in client.releases.models() if one["name"] == "m"]
    assert found["versions"] == [1, 2, 3]
    assert found["labels"]["production"] == 1
    assert client.releases.version("m", "2")["version"] == 2
    assert len(client.releases.versions("m")) >= 3
    assert client.releases.diff("m", "1", "2")["versions"] == [1, 2]
    assert client.releases.log("m")[0]["what"] == "add"


def test_labels_move_through_a_server(served: tuple[Store, Running], client: Client) -> None:
    store, _ = served
    assert client.releases.promote("m", "2", "staging", [])["version"] == 2
    assert client.releases.move("m", "staging", "3")["before"] == 2
    assert client.releases.rollback("m", "staging")["version"] == 2
    assert store.record("m").labels["staging"].version == 2
    client.releases.unlabel("m", "staging")
    assert "staging" not in store.record("m").labels


def test_what_cannot_be_done_is_told_with_its_code(
    served: tuple[Store, Running], client: Client
) -> None:
    with pytest.raises(NotFound, match="has no version 9"):
        client.releases.move("m", "staging", "9")
    with pytest.raises(InvalidInput, match="accuracy is not known"):
        client.releases.promote("m", "2", "staging", ["accuracy>=0.9"])
    with pytest.raises(InvalidInput, match="label 'production' is at version 1"):
        client.releases.remove("m", "1")
    with pytest.raises(InvalidInput, match="cannot be the name of a model"):
        client.releases.versions("../m")
    with pytest.raises(InvalidInput, match="cannot be a label"):
        client.releases.promote("m", "2", "--json", [])


def test_a_model_is_added_shown_and_removed_by_the_command(
    served: tuple[Store, Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, server = served
    file = models.save(models.scale(2.0), tmp_path / "new.onnx")
    rows = np.ones((2, 4), np.float32)
    np.savez(tmp_path / "golden.npz", INPUT0=rows, OUTPUT0=rows * 2)
    where = ("--url", f"127.0.0.1:{server.port}", "--timeout", "60")
    added = ("add", "n", str(file), "--golden", str(tmp_path / "golden.npz"))
    said = ("--metric", "accuracy=0.9", "--who", "ann", "--why", "new")
    assert main(["models", *added, *said, *where]) == 0
    assert capsys.readouterr().out == "n version 1 added\n"
    number, release = store.release("n", "latest")
    assert (number, release.about.author, dict(release.about.metrics)) == (
        1, "ann", {"accuracy": 0.9},
    )  # fmt: skip
    assert {one.path for one in release.files} == {"model.onnx", "golden.npz"}
    assert main(["models", "show", "n", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)[0]["version"] == 1
    assert main(["models", "remove", "n", "1", *where]) == 0


def test_what_can_be_no_model_is_not_added_by_others(
    served: tuple[Store, Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.onnx"
    file.write_text("no model")
    assert main(["models", "add", "bad", str(file), "--url", f"127.0.0.1:{served[1].port}"]) == 1
    assert "the model cannot be served" in capsys.readouterr().err
    with pytest.raises(Exception, match="has no model 'bad'"):
        served[0].record("bad")


def test_an_upload_goes_on_where_it_was_cut_off(client: Client) -> None:
    digest = "0" * 64
    releases = client.releases
    assert releases._part(digest, 0, b"abc") == 3
    # Sent twice, because the first answer was lost.
    assert releases._part(digest, 0, b"abc") == 3
    assert releases._part(digest, 3, b"d") == 4
    with pytest.raises(InvalidInput, match="is no SHA-256"):
        releases._part("../x", 0, b"")


def test_a_backup_is_made_through_a_server_where_it_allows_that(
    served: tuple[Store, Running], capsys: pytest.CaptureFixture[str]
) -> None:
    store, server = served
    place = str(Path(store.address).parent / "backups")
    where = ("--url", f"127.0.0.1:{server.port}", "--timeout", "60")
    assert main(["models", "backup", place, "m", "--why", "nightly", "--json", *where]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["models"]["m"]["versions"] == [1, 2, 3]
    assert main(["models", "backups", place, "--json", *where]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["why"]) == (made["name"], "nightly")
    assert main(["models", "backup", "/elsewhere", *where]) != 0
    assert f"makes no backups in '/elsewhere'; it may: {place}" in capsys.readouterr().err
    assert main(["models", "restore", place, *where]) == 1
    assert "give --store, not --url" in capsys.readouterr().err


def test_a_rule_is_asked_of_a_server(
    served: tuple[Store, Running], client: Client, tmp_path: Path
) -> None:
    store, _ = served
    for number in range(3):
        add(store, tmp_path, b"%d" % number, "ruled")
    told = client.releases.prune(["ruled"], 1, None, apply=False)
    assert [one["kept"] for one in told] == ["", "", "the newest"]
    assert sorted(store.record("ruled").versions) == [1, 2, 3]
    client.releases.prune(["ruled"], 2, 0.0, apply=True)
    assert sorted(store.record("ruled").versions) == [2, 3]
    with pytest.raises(InvalidInput, match="what is to be kept"):
        client.releases.prune([], None, None, apply=True)
    store.remove("ruled", "3", BY)
    store.remove("ruled", "2", BY)


def test_a_server_without_a_store_says_so(tmp_path: Path) -> None:
    folder = models.repository(tmp_path, {"m": models.scale(2.0)})
    with (
        running(folder) as server,
        Client(f"127.0.0.1:{server.port}") as client,
        pytest.raises(Unimplemented, match="this server follows no store of models"),
    ):
        client.releases.models()


def test_releases_take_the_permission_admin(tmp_path: Path) -> None:
    folder = models.repository(tmp_path, {"m": models.scale(2.0)})
    with (
        running(folder, anonymous_permissions="infer,read") as server,
        Client(f"127.0.0.1:{server.port}") as client,
        pytest.raises(PermissionDenied),
    ):
        client.releases.rollback("m", "production")
