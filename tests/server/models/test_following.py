"""A server follows its store: what is promoted is loaded first, and what fails changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from inferd_server.errors import ModelNotReady
from inferd_server.models.following import Follower
from inferd_server.models.layout import read_source
from inferd_server.models.releases import Mirror, Wanted, step, wanted_of
from inferd_store.errors import InUse, StoreError, Unreachable
from inferd_store.objects import Entry
from inferd_store.record import Label, Record, Version
from inferd_store.store import Store

from tests.fakes.clock import FakeClock
from tests.store.releases import BY, add, made

WARM_S = 60.0


def record(*versions: int, **labels: int) -> Record:
    return Record(
        "m",
        {number: Version("", "", "") for number in versions},
        {name: Label(version) for name, version in labels.items()},
    )


@pytest.mark.parametrize(
    ("terms", "versions", "labels"),
    [
        (("labels",), (1, 2), {"production": 1, "staging": 2, "": 1}),
        (("latest",), (4,), {}),
        (("latest:2",), (3, 4), {}),
        (("latest:9",), (1, 2, 3, 4), {"production": 1, "staging": 2, "": 1}),
        (("all",), (1, 2, 3, 4), {"production": 1, "staging": 2, "": 1}),
        (("3", "7"), (3,), {}),
        (("@staging",), (2,), {"staging": 2, "": 2}),
        (("@staging", "@production"), (1, 2), {"production": 1, "staging": 2, "": 2}),
        (("@nothing",), (), {}),
    ],
)
def test_what_of_a_store_serves_is_said_by_labels_numbers_and_age(
    terms: tuple[str, ...], versions: tuple[int, ...], labels: Mapping[str, int]
) -> None:
    assert wanted_of(record(1, 2, 3, 4, production=1, staging=2), terms) == Wanted(versions, labels)


def test_without_a_label_the_latest_serves() -> None:
    assert wanted_of(record(1, 2), ("labels",)) == Wanted((2,), {})


def test_a_label_moves_once_the_version_serves_that_it_goes_to() -> None:
    wanted = Wanted((1, 2), {"production": 2, "staging": 1})
    assert step(wanted, {1}, {"production": 1}) == {"production": 1, "staging": 1}
    assert step(wanted, {1, 2}, {"production": 1}) == {"production": 2, "staging": 1}


@dataclass
class Server:
    """A server that loads what the folder says, but for versions that are broken."""

    mirror: Mirror
    broken: set[int] = field(default_factory=set)
    serving: dict[str, tuple[int, ...]] = field(default_factory=dict)
    labels: dict[str, Mapping[str, int]] = field(default_factory=dict)
    loads: int = 0

    def load(self, name: str) -> None:
        self.loads += 1
        source = read_source(self.mirror.folder, name)
        if wrong := self.broken & set(source.versions):
            raise ModelNotReady(f"version {min(wrong)} is broken")
        self.serving[name], self.labels[name] = tuple(source.versions), source.labels

    def unload(self, name: str) -> None:
        del self.serving[name]

    def ready(self) -> set[tuple[str, int]] | None:
        return {(name, one) for name, versions in self.serving.items() for one in versions}


@dataclass
class Following:
    store: Store
    server: Server
    follower: Follower
    clock: FakeClock
    folder: Path

    def look(self) -> tuple[int, ...]:
        self.follower.look(self.server)
        return self.server.serving.get("m", ())

    def add(self, content: bytes) -> int:
        return add(self.store, self.folder, content)


def followed(folder: Path, store: Store, terms: tuple[str, ...] = ("labels",)) -> Following:
    (folder / "mirror").mkdir()
    clock, mirror = FakeClock(), Mirror(folder / "mirror", store, folder / "cache")
    follower = Follower(store, mirror, terms, WARM_S, clock)
    follower.prepare()
    server = Server(mirror)
    for path in mirror.folder.iterdir():
        server.load(path.name)
    server.loads = 0
    return Following(store, server, follower, clock, folder)


@pytest.fixture
def following(tmp_path: Path) -> Following:
    """Return a server of a store whose model has two versions, the first of them in production."""
    store = made(tmp_path)
    for content in (b"a", b"b"):
        add(store, tmp_path, content)
    store.move("m", "production", "1", BY)
    return followed(tmp_path, store)


def test_a_promoted_version_is_loaded_and_the_one_before_kept_warm(following: Following) -> None:
    assert following.look() == (1,)
    following.store.move("m", "production", "2", BY)
    assert following.look() == (1, 2)
    assert following.server.labels["m"] == {"production": 2, "": 2}
    following.clock.advance(WARM_S)
    assert following.look() == (2,)


def test_a_rollback_to_a_warm_version_moves_labels_and_loads_nothing(following: Following) -> None:
    following.store.move("m", "production", "2", BY)
    following.look()
    following.store.rollback("m", "production", BY)
    assert following.look() == (1, 2)
    assert following.server.labels["m"] == {"production": 1, "": 1}


def test_a_store_that_did_not_change_costs_no_load(following: Following) -> None:
    for _ in range(3):
        following.look()
    assert following.server.loads == 0


def test_a_version_that_cannot_be_loaded_leaves_the_one_before_serving(
    following: Following,
) -> None:
    following.server.broken = {2}
    following.store.move("m", "production", "2", BY)
    assert following.look() == (1,)
    assert following.server.labels["m"] == {"production": 1, "": 1}
    assert following.follower.gauges()["inferd_store_failed_versions"] == 1
    # It is not tried again at once, and what the folder says is what serves.
    loads = following.server.loads
    assert following.look() == (1,)
    assert following.server.loads == loads
    source = read_source(following.server.mirror.folder, "m")
    assert (set(source.versions), source.left) == ({1}, {2})
    following.server.broken = set()
    following.clock.advance(2.0)
    assert following.look() == (1, 2)
    assert following.server.labels["m"] == {"production": 2, "": 2}
    assert following.follower.gauges()["inferd_store_failed_versions"] == 0


def test_a_broken_version_keeps_no_other_label_from_moving(following: Following) -> None:
    following.add(b"c")
    following.server.broken = {2}
    following.store.move("m", "staging", "2", BY)
    following.store.move("m", "production", "3", BY)
    assert following.look() == (1, 3)
    assert following.server.labels["m"]["production"] == 3


def test_a_version_that_fails_at_the_start_is_tried_again(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    store.move("m", "production", "1", BY)
    following = followed(tmp_path, store)
    following.server.serving.clear()
    assert following.look() == ()
    following.clock.advance(2.0)
    assert following.look() == (1,)


def test_a_damaged_release_is_not_served(following: Following) -> None:
    release = following.store.release("m", "2")[1]
    path = following.store.objects.path(f"blobs/sha256/{release.files[0].digest}")
    assert path is not None
    path.write_bytes(b"B")
    following.store.move("m", "production", "2", BY)
    assert following.look() == (1,)
    assert following.follower.gauges()["inferd_store_failed_versions"] == 1


def test_a_model_that_comes_is_served_and_one_that_goes_is_unloaded(
    following: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(following.store, following.folder, b"n", "n")
    following.look()
    assert following.server.serving == {"m": (1,), "n": (1,)}
    # Nobody would remove what is served; a policy may want it no more.
    monkeypatch.setattr(following.follower, "_terms", ("@production",))
    following.store.move("n", "staging", "1", BY)
    following.look()
    following.clock.advance(WARM_S)
    following.look()
    assert following.server.serving == {"m": (1,)}


def test_what_a_server_uses_is_leased_until_it_ends(following: Following) -> None:
    following.store.unlabel("m", "production", BY)
    with pytest.raises(InUse, match="version 1 of model 'm' is served by"):
        following.store.remove("m", "1", BY)
    following.follower.close()
    following.store.remove("m", "1", BY)


def test_a_store_that_cannot_be_read_is_told_once_and_what_serves_goes_on(
    following: Following, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: str) -> list[Entry]:
        raise Unreachable("it does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(following.store.objects, "list", fail)
        assert (following.look(), following.look()) == ((1,), (1,))
        assert following.follower.gauges()["inferd_store_unreachable"] == 1
    assert [each.message for each in caplog.records if each.levelname == "ERROR"] == [
        "the store cannot be read; what serves goes on"
    ]
    following.store.move("m", "production", "2", BY)
    assert following.look() == (1, 2)
    assert following.follower.gauges()["inferd_store_unreachable"] == 0


def test_a_change_is_not_lost_where_another_model_cannot_be_read(following: Following) -> None:
    following.store.objects.put("models/a.json", b"{", "*")
    following.store.move("m", "production", "2", BY)
    assert following.look() == (1, 2)


def test_a_store_that_cannot_be_written_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = made(tmp_path)
    add(store, tmp_path)

    def refuse(*_: object) -> None:
        raise StoreError("the file system is read-only")

    monkeypatch.setattr(store.objects, "put", refuse)
    assert followed(tmp_path, store).look() == (1,)
