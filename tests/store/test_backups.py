"""Backups of a store, and what is restored of them."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from inferd_store import local
from inferd_store.backups import BACKUPS, Backups, check_apart, open_backups
from inferd_store.errors import (
    Damaged,
    NotAStore,
    ReadOnly,
    Refused,
    StoreError,
    StoreFull,
)
from inferd_store.local import LocalObjects
from inferd_store.record import KEPT_EVENTS
from inferd_store.release import digest_of
from inferd_store.restoring import RESTORED, read_saved, restore
from inferd_store.retention import DAY_S, Rule
from inferd_store.store import Store, open_store

from tests.store.releases import BY, add, whole
from tests.store.saving import Ticking, blob, empty, moved, saved


def test_a_backup_brings_everything_back(store: Store, place: Backups, tmp_path: Path) -> None:
    for number in range(20):
        store.move("m", "staging", str(1 + number % 2), BY)
    place.make(store, (), BY)
    restored = empty(tmp_path)
    became = restore(place, saved(place), restored, BY)
    assert [(one.name, one.what) for one in became] == [("m", RESTORED), ("n", RESTORED)]
    whole(restored)
    for name in ("m", "n"):
        assert restored.record(name).versions == store.record(name).versions
        told = restored.log(name)
        assert told[:-1] == store.log(name)
        assert (told[-1].what, told[-1].who) == ("restore", "ann")
    record = restored.record("m")
    assert record.labels["production"].version == 2
    assert len(record.events) == KEPT_EVENTS
    # A number that was given before the backup is not given again.
    assert add(restored, tmp_path, b"new") == 3
    assert restored.rollback("m", "staging", BY).version == 1
    whole(restored)


def test_only_what_a_place_lacks_is_sent(store: Store, place: Backups, tmp_path: Path) -> None:
    assert place.make(store, (), BY).sent > 0
    again: list[int] = []
    assert place.make(store, (), BY, watch=moved(again)).sent == 0
    assert again == []
    add(store, tmp_path, b"x" * 1000)
    sent: list[int] = []
    made = place.make(store, (), BY, watch=moved(sent))
    # The file, its manifest, the record and the audit log of one model.
    assert sum(sent) == made.sent
    assert 1000 < made.sent < 6000
    for path in (Path(place.address) / "blobs/sha256").iterdir():
        os.utime(path, (1.0, 1.0))
    # However old it is.
    assert place.make(store, (), BY).sent == 0


def test_a_backup_stays_what_it_was_whatever_becomes_of_the_store(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    first = place.make(store, (), BY)
    before = place.objects.get(f"{BACKUPS}{first.name}.json").data
    add(store, tmp_path, b"d")
    store.move("m", "production", "3", BY)
    place.make(store, (), BY)
    assert place.objects.get(f"{BACKUPS}{first.name}.json").data == before
    restored = empty(tmp_path)
    restore(place, read_saved(place, first.name), restored, BY)
    assert sorted(restored.record("m").versions) == [1, 2]
    assert restored.record("m").labels["production"].version == 2


class Changing(LocalObjects):
    """Objects of a store in which something is done before a content is read."""

    def __init__(self, folder: Path, digest: str, change: Callable[[], object]) -> None:
        super().__init__(folder)
        self._digest = digest
        self._change = change

    def read(self, key: str, start: int) -> Iterator[bytes]:
        if key.endswith(self._digest):
            self._digest = "done"
            self._change()
        return super().read(key, start)


def test_a_backup_is_of_one_time_though_the_store_is_written_meanwhile(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    digest = store.release("m", "1")[1].files[0].digest

    def change() -> None:
        add(store, tmp_path, b"d")
        store.move("m", "production", "3", BY)

    writing = Store(Changing(Path(store.address), digest, change))
    made = place.make(writing, (), BY)
    assert made.backup.models["m"].versions == (1, 2)
    assert made.backup.models["m"].labels == {"production": 2}
    assert place.check(made.name) == []
    restored = empty(tmp_path)
    restore(place, saved(place), restored, BY)
    whole(restored)


def test_a_version_that_is_removed_meanwhile_is_no_part_of_a_backup(
    store: Store, place: Backups
) -> None:
    digest = store.release("m", "1")[1].files[0].digest

    def change() -> None:
        store.remove("m", "1", BY)
        store.objects.delete(f"blobs/sha256/{digest}")

    made = place.make(Store(Changing(Path(store.address), digest, change)), (), BY)
    assert made.backup.models["m"].versions == (2,)
    assert place.check(made.name) == []
    assert len(place.names()) == 1


def test_what_is_damaged_in_the_store_gets_into_no_backup(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    digest = store.release("m", "1")[1].files[0].digest
    blob(store.address, digest).write_bytes(b"x")
    with pytest.raises(Damaged, match=r"version 1 of model 'm': model.onnx in .* not what its d"):
        place.make(store, (), BY)
    blob(store.address, digest).unlink()
    with pytest.raises(Damaged, match=r"lacks a content: version 1 of model 'm': model.onnx"):
        place.make(store, (), BY)
    assert place.names() == []
    assert not blob(place.address, digest).exists()
    assert place.make(store, ("n",), BY).backup.asked == ("n",)


def test_damage_at_rest_is_found_and_mended_by_the_next_backup(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    name = place.make(store, (), BY).name
    digest = store.release("m", "1")[1].files[0].digest
    blob(place.address, digest).write_bytes(b"x")
    assert place.check(name) == [
        f"the content {digest} in {place.address} is not what its digest says"
    ]
    with pytest.raises(Damaged, match=r"version 1 of model 'm': model.onnx"):
        restore(place, saved(place), empty(tmp_path), BY)
    assert open_store(str(tmp_path / "restored")).names() == []
    assert place.make(store, (), BY, verify=True).sent == 1
    assert place.check(name) == []
    blob(place.address, digest).unlink()
    assert place.check(name) == [f"the content {digest} is not in {place.address}"]
    assert place.make(store, (), BY).sent == 1


def test_a_backup_that_was_changed_is_not_believed(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    name = place.make(store, (), BY).name
    path = tmp_path / "backups" / BACKUPS / f"{name}.json"
    path.write_bytes(path.read_bytes().replace(b"ann", b"bob"))
    with pytest.raises(Damaged, match="is damaged: it is not what its name says"):
        place.read(name)
    assert place.check(name) == [f"the backup {name} is damaged: it is not what its name says"]
    # It takes no whole one's place.
    assert all(one.kept for one in place.judged(Rule(last=1)))
    # What it needs is not known, so nothing is swept; and the next backup is whole.
    with pytest.raises(Damaged, match="nothing was swept"):
        place.remove([])
    assert place.check(place.make(store, (), BY).name) == []


def published(place: Backups, document: object) -> str:
    """Write a backup as another program might; return its name."""
    data = json.dumps(document).encode()
    name = f"20300101T000000.000Z-{digest_of(data)[:16]}"
    place.objects.put(f"{BACKUPS}{name}.json", data, "")
    return name


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"format": 2}, "has format 2, which a later inferd wrote"),
        ({"format": 1}, "is damaged"),
        ([], "is damaged"),
        (
            {
                "format": 1, "time": "", "who": "", "why": "", "store": "", "asked": [],
                "models": {"../m": {"record": "", "log": [], "versions": [], "labels": {}}},
                "contents": {},
            },
            "cannot be the name of a model",
        ),
        (
            {
                "format": 1, "time": "", "who": "", "why": "", "store": "", "asked": [],
                "models": {}, "contents": {"../../etc": 1},
            },
            "is no digest",
        ),
    ],
)  # fmt: skip
def test_what_is_no_backup_of_this_format_is_told(
    store: Store, place: Backups, document: object, said: str
) -> None:
    with pytest.raises(Damaged, match=said):
        read_saved(place, published(place, document))


def test_a_place_of_a_later_format_is_not_touched(place: Backups) -> None:
    place.objects.put("inferd-backups.json", b'{"format": 2}', "*")
    with pytest.raises(Damaged, match="has format 2, which a later inferd wrote"):
        open_backups(place.address, Ticking(), create=True)


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, StoreFull, "no room left"),
        (errno.EROFS, ReadOnly, "cannot be written"),
        (errno.EIO, StoreError, "cannot be written"),
    ],
)
def test_a_place_that_cannot_be_written_keeps_its_backups_and_shows_no_half_one(
    store: Store,
    place: Backups,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[StoreError],
    said: str,
) -> None:
    name = place.make(store, (), BY).name
    add(store, tmp_path, b"d")
    restored = empty(tmp_path)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(local.os, "fsync", fail)
        with pytest.raises(kind, match=said):
            place.make(store, (), BY)
        with pytest.raises(kind, match=said):
            restore(place, saved(place), restored, BY)
    assert place.names() == [name]
    assert place.check(name) == []
    assert restored.names() == []
    assert not list((tmp_path / "backups" / "tmp").glob("*"))


def test_backups_have_a_place_of_their_own(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotAStore, match="is a store of models; give backups a place"):
        open_backups(store.address, Ticking(), create=True)
    with pytest.raises(NotAStore, match="has no backups"):
        open_backups(str(tmp_path / "nothing"), Ticking())
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore, match="is a file"):
        open_backups(str(tmp_path / "file"), Ticking(), create=True)
    with pytest.raises(NotAStore, match="there is something in it"):
        open_backups(str(tmp_path), Ticking(), create=True)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("store", "place", "apart"),
    [
        ("/a/store", "/a/backups", True),
        ("/a/store", "/a/store-backups", True),
        ("/a/store", "/a/store/backups", False),
        ("/a/store", "/a", False),
        ("/a/store", "/a/store/", False),
        ("s3://b/store", "/a", True),
        ("s3://b/store", "s3://b/store/x", False),
        ("s3://b/store", "s3://b/backups", True),
    ],
)
def test_backups_lie_not_in_their_store(store: str, place: str, apart: bool) -> None:
    if apart:
        check_apart(store, place)
        return
    with pytest.raises(NotAStore, match="lie in each other"):
        check_apart(store, place)


def test_a_rule_removes_old_backups_and_what_only_they_need(store: Store, tmp_path: Path) -> None:
    clock = Ticking()
    place = open_backups(str(tmp_path / "backups"), clock, create=True)
    names = []
    for content in (b"1", b"2", b"3"):
        version = add(store, tmp_path, content)
        names.append(place.make(store, (), BY).name)
        store.remove("m", str(version), BY)
        clock.now += DAY_S
    only = place.make(store, ("n",), BY).name
    for path in (Path(place.address) / "blobs/sha256").iterdir():
        os.utime(path, (1e9, 1e9))
    verdicts = place.judged(Rule(last=2))
    assert {one.key: bool(one.kept) for one in verdicts} == {
        names[0]: False, names[1]: True, names[2]: True, only: True,
    }  # fmt: skip
    assert [one.key for one in place.judged(Rule(days=1.5)) if not one.kept] == names[:2]
    # Its file and manifest, record and log.
    assert place.remove(names[:1]) == 4
    assert place.names() == [*names[1:], only]
    assert [place.check(name) for name in place.names()] == [[], [], []]
    with pytest.raises(Refused, match="what is to be kept"):
        place.judged(Rule())


def test_what_a_backup_under_way_needs_is_not_swept(store: Store, place: Backups) -> None:
    old = place.make(store, (), BY).name
    for path in (Path(place.address) / "blobs/sha256").iterdir():
        os.utime(path, (1.0, 1.0))
    swept = []
    add(store, Path(store.address).parent, b"new")
    new = store.release("m", "latest")[1].files[0].digest

    def remove() -> None:
        # Somebody removes the backup that has all else, while this one is being made.
        swept.append(open_backups(place.address, Ticking()).remove([old]))

    made = place.make(Store(Changing(Path(store.address), new, remove)), (), BY)
    # Records and logs of before that the new backup has otherwise.
    assert swept == [2]
    assert place.check(made.name) == []
