"""Restoring models of a backup into stores that have others, or lack some of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_store.backups import Backups
from inferd_store.errors import Damaged, NotThere, Refused, StoreError
from inferd_store.restoring import RESTORED, SAME, read_saved, restore
from inferd_store.store import Store

from tests.store.releases import BY, add, whole
from tests.store.saving import blob, empty, moved, saved


def test_restoring_again_changes_nothing(store: Store, place: Backups, tmp_path: Path) -> None:
    place.make(store, (), BY)
    restored = empty(tmp_path)
    restore(place, saved(place), restored, BY)
    before = [entry.etag for entry in restored.heads()]
    sent: list[int] = []
    became = restore(place, saved(place), restored, BY, watch=moved(sent))
    assert {one.what for one in became} == {SAME}
    assert ([entry.etag for entry in restored.heads()], sent) == (before, [])


def test_what_differs_is_replaced_only_where_that_is_asked_for(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    place.make(store, (), BY)
    add(store, tmp_path, b"d")
    store.move("m", "production", "3", BY)
    before = store.objects.get("models/m.json")
    with pytest.raises(
        Refused,
        match=r"has versions 1, 2, 3 and labels production=3, the backup 1, 2 and production=2;",
    ):
        restore(place, saved(place), store, BY)
    assert store.objects.get("models/m.json") == before
    became = restore(place, saved(place), store, BY, force=True)
    assert [(one.name, one.what) for one in became] == [("m", RESTORED), ("n", SAME)]
    record = store.record("m")
    assert (sorted(record.versions), record.labels["production"].version) == ([1, 2], 2)
    # Nothing of the log is lost, and no number is given twice.
    assert [event.what for event in store.log("m")] == [
        "add", "add", "label", "add", "label", "restore",
    ]  # fmt: skip
    assert add(store, tmp_path, b"e") == 4
    whole(store)


def test_a_removed_version_comes_back(store: Store, place: Backups, tmp_path: Path) -> None:
    place.make(store, (), BY)
    store.remove("m", "1", BY)
    restore(place, saved(place, "m"), store, BY, force=True)
    assert sorted(store.record("m").versions) == [1, 2]
    whole(store)


def test_a_number_never_stands_for_two_contents(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    place.make(store, (), BY)
    other = empty(tmp_path)
    add(other, tmp_path, b"other")
    for force in (False, True):
        with pytest.raises(Refused, match="version 1 of model 'm' in the store is another one"):
            restore(place, saved(place), other, BY, force)
    assert other.names() == ["m"]
    assert other.known("n") is None
    # Both histories are told where they meet.
    other.remove("m", "1", BY)
    restore(place, saved(place), other, BY, force=True)
    whole(other)
    assert sorted(event.what for event in other.log("m")) == [
        "add", "add", "add", "label", "remove", "restore",
    ]  # fmt: skip


def test_who_saw_a_label_before_a_restore_does_not_move_it_after(
    store: Store, place: Backups
) -> None:
    place.make(store, (), BY)
    seen = store.record("m").labels["production"]
    store.remove("m", "1", BY)
    restore(place, saved(place, "m"), store, BY, force=True)
    with pytest.raises(StoreError, match="meanwhile"):
        store.move("m", "production", "1", BY, seen=seen)


def test_what_is_lost_or_damaged_in_the_store_comes_back(store: Store, place: Backups) -> None:
    place.make(store, (), BY)
    first, second = (store.release("m", version)[1].files[0] for version in ("1", "2"))
    blob(store.address, first.digest).unlink()
    restore(place, saved(place), store, BY)
    whole(store)
    manifest = blob(store.address, store.record("m").versions[1].manifest)
    manifest.unlink()
    restore(place, saved(place), store, BY)
    whole(store)
    blob(store.address, second.digest).write_bytes(b"x")
    restore(place, saved(place), store, BY, verify=True)
    assert blob(store.address, second.digest).read_bytes() == b"b"


def test_a_record_that_is_damaged_comes_back_once_it_is_away(store: Store, place: Backups) -> None:
    place.make(store, (), BY)
    told = store.log("m")
    record = Path(store.address) / "models/m.json"
    record.write_bytes(b"{")
    with pytest.raises(Damaged, match="the record of model 'm' is damaged"):
        restore(place, saved(place), store, BY, force=True)
    record.unlink()
    restore(place, saved(place), store, BY)
    assert store.log("m")[:-1] == told
    whole(store)


def test_one_model_is_saved_and_restored_alone(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    place.make(store, (), BY)
    only = place.make(store, ("n",), BY)
    assert place.latest() == only.name
    assert place.latest(("m",)) != only.name
    restored = empty(tmp_path)
    restore(place, saved(place, "n"), restored, BY)
    assert restored.names() == ["n"]
    with pytest.raises(NotThere, match="has no model 'm'; it has n"):
        read_saved(place, only.name, ("m",))
    with pytest.raises(NotThere, match="has no backup of x"):
        place.latest(("x",))
    with pytest.raises(NotThere, match="has no model 'x'"):
        place.make(store, ("x",), BY)


def test_a_model_without_versions_keeps_its_numbers_and_its_log(
    store: Store, place: Backups, tmp_path: Path
) -> None:
    store.remove("n", "1", BY)
    place.make(store, (), BY)
    restored = empty(tmp_path)
    restore(place, saved(place), restored, BY)
    assert add(restored, tmp_path, b"n", "n") == 2
