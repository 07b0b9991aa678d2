"""A store on disk: releases, labels, the audit log, and what may not be done to it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from inferd_store import local
from inferd_store.blobs import KEPT_S
from inferd_store.errors import (
    Conflict,
    Damaged,
    InUse,
    NotAStore,
    NotThere,
    ReadOnly,
    Refused,
    StoreError,
    StoreFull,
)
from inferd_store.lease import Lease
from inferd_store.local import LocalObjects
from inferd_store.record import Label
from inferd_store.store import Store, open_store

from tests.store.releases import BY, add, made, whole

MOVERS, ROUNDS = 32, 20


def test_versions_are_counted_and_a_number_is_never_given_twice(tmp_path: Path) -> None:
    store = made(tmp_path)
    assert [add(store, tmp_path, b"a"), add(store, tmp_path, b"b")] == [1, 2]
    store.remove("m", "2", BY)
    assert add(store, tmp_path, b"c") == 3
    assert sorted(store.record("m").versions) == [1, 3]


def test_equal_files_are_kept_once(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path, b"same")
    before = {entry.key for entry in store.objects.list("blobs/")}
    add(store, tmp_path, b"same")
    # Not even another manifest: the releases are equal.
    assert {entry.key for entry in store.objects.list("blobs/")} == before


def moves_at_once(store_of: Callable[[], Store], rounds: int = ROUNDS) -> None:
    """Let many move one label at once, and see that one of them wins each time."""
    barrier = threading.Barrier(MOVERS)

    def move(version: int) -> str:
        store = store_of()
        seen = store.record("m").labels.get("production", Label(0))
        barrier.wait()
        try:
            store.move("m", "production", str(version), BY, seen=seen)
        except Conflict as error:
            return str(error)
        return "won"

    with ThreadPoolExecutor(MOVERS) as pool:
        for number in range(1, rounds + 1):
            said = list(pool.map(move, [1 + index % 2 for index in range(MOVERS)]))
            assert said.count("won") == 1
            assert all("meanwhile" in text for text in said if text != "won")
            assert store_of().record("m").labels["production"].moves == number
    whole(store_of())


def test_of_32_who_move_one_label_at_once_exactly_one_wins(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path, b"a")
    add(store, tmp_path, b"b")
    moves_at_once(lambda: open_store(store.address))


def test_who_change_different_things_of_a_model_at_once_all_succeed(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    labels = [f"label{number}" for number in range(12)]
    with ThreadPoolExecutor(len(labels)) as pool:
        list(pool.map(lambda label: open_store(store.address).move("m", label, "1", BY), labels))
    assert sorted(store.record("m").labels) == sorted(labels)
    whole(store)


def test_a_rollback_goes_to_what_was_before_and_further_back_the_next_time(tmp_path: Path) -> None:
    store = made(tmp_path)
    for content in (b"a", b"b", b"c"):
        store.move("m", "production", str(add(store, tmp_path, content)), BY)
    assert store.rollback("m", "production", BY).version == 2
    assert store.rollback("m", "production", BY).version == 1
    with pytest.raises(NotThere, match="was at no other version before"):
        store.rollback("m", "production", BY)


def test_a_rollback_passes_over_versions_that_were_removed(tmp_path: Path) -> None:
    store = made(tmp_path)
    for content in (b"a", b"b", b"c"):
        store.move("m", "production", str(add(store, tmp_path, content)), BY)
    store.remove("m", "2", BY)
    assert store.rollback("m", "production", BY).version == 1


def test_the_log_says_who_what_when_and_why_of_everything(tmp_path: Path) -> None:
    store = made(tmp_path)
    for _ in range(2):
        add(store, tmp_path)
    for number in range(30):
        store.move("m", "staging", str(1 + number % 2), BY)
    store.unlabel("m", "staging", BY)
    events = store.log("m")
    assert [event.sequence for event in events] == list(range(1, 34))
    assert {event.who for event in events} == {"ann"}
    assert {event.why for event in events} == {"because"}
    assert [event.what for event in events[:3]] == ["add", "add", "label"]
    assert events[-1].what == "unlabel"


def test_an_event_whose_own_object_was_not_written_is_told_all_the_same(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    for entry in store.objects.list("audit/"):
        store.objects.delete(entry.key)
    assert [event.what for event in store.log()] == ["add"]
    # And it is written before the record forgets it.
    for _ in range(20):
        store.move("m", "staging", "1", BY)
    assert len(store.log()) == 21


def test_what_a_label_or_a_server_uses_is_not_removed(tmp_path: Path) -> None:
    now = [1000.0]
    store = Store(made(tmp_path).objects, clock=lambda: now[0])
    add(store, tmp_path)
    store.move("m", "stable", "1", BY)
    with pytest.raises(Refused, match="label 'stable' is at version 1; move it first"):
        store.remove("m", "1", BY)
    store.unlabel("m", "stable", BY)
    store.leases.tell(Lease("host-1", {"m": (1,)}, 1010.0))
    with pytest.raises(InUse, match="is served by host-1"):
        store.remove("m", "1", BY)
    now[0] = 1011.0
    store.remove("m", "1", BY)
    with pytest.raises(NotThere, match="has no version 1"):
        store.release("m", "1")


def test_blobs_are_deleted_that_nothing_refers_to_and_nobody_may_be_adding(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path, b"a")
    add(store, tmp_path, b"b")
    store.remove("m", "1", BY)
    assert len(store.objects.list("blobs/")) == 4
    later = max(entry.modified for entry in store.objects.list("blobs/")) + KEPT_S + 1
    assert Store(store.objects, clock=lambda: later).prune() == 2
    whole(store)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("../m", "1", "cannot be the name of a model"),
        ("a/b", "1", "cannot be the name of a model"),
        ("..", "1", "cannot be the name of a model"),
        (".m", "1", "cannot be the name of a model"),
        ("m@x", "1", "cannot be the name of a model"),
        ("", "1", "cannot be the name of a model"),
        ("other", "1", "has no model 'other'"),
        ("m", "0", "is no version"),
        ("m", "one", "is no version"),
        ("m", "1.5", "is no version"),
        ("m", "9", "has no version 9; it has 1"),
        ("m", "@stable", "has no label 'stable'"),
    ],
)
def test_a_label_goes_nowhere_that_is_not_there(
    tmp_path: Path, name: str, version: str, said: str
) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    before = store.objects.get("models/m.json")
    with pytest.raises(StoreError, match=said):
        store.move(name, "production", version, BY)
    assert store.objects.get("models/m.json") == before


@pytest.mark.parametrize("label", ["", "1", "latest", "a/b", "../a", ".a", "a" * 65, "a b"])
def test_a_label_has_a_name_that_is_no_version_and_no_path(tmp_path: Path, label: str) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    with pytest.raises(Refused, match="cannot be a label"):
        store.move("m", label, "1", BY)


def test_a_folder_with_something_else_in_it_becomes_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotAStore, match="there is something in it"):
        open_store(str(tmp_path), create=True)
    with pytest.raises(NotAStore, match="is a file"):
        open_store(str(tmp_path / "file"), create=True)
    with pytest.raises(NotAStore, match="is no store of models"):
        open_store(str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, StoreFull, "no room left"),
        (errno.EDQUOT, StoreFull, "no room left"),
        (errno.EROFS, ReadOnly, "cannot be written"),
        (errno.EACCES, ReadOnly, "cannot be written"),
        (errno.EIO, StoreError, "cannot be written"),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "open"])
def test_what_cannot_be_written_leaves_the_store_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    kind: type[StoreError],
    said: str,
    call: str,
) -> None:
    store = made(tmp_path)
    add(store, tmp_path)

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    before = store.objects.get("models/m.json")
    with monkeypatch.context() as patch:
        patch.setattr(local.os, call, fail)
        with pytest.raises(kind, match=said):
            add(store, tmp_path, b"b")
        with pytest.raises(kind, match=said):
            store.move("m", "production", "1", BY)
    assert store.objects.get("models/m.json") == before
    assert not list((tmp_path / "store" / "tmp").glob("*"))
    whole(store)
    assert add(store, tmp_path, b"b") == 2


def test_a_content_that_was_changed_in_the_store_is_seen(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    manifest = store.record("m").versions[1].manifest
    path = store.objects.path(f"blobs/sha256/{manifest}")
    assert path is not None
    path.write_bytes(path.read_bytes().replace(b"ann", b"bob"))
    with pytest.raises(Damaged, match="not what its digest says"):
        store.release("m", "1")
    assert isinstance(store.objects, LocalObjects)
    store.objects.put("models/m.json", b"{", "*")
    with pytest.raises(Damaged, match="the record of model 'm' is damaged"):
        store.record("m")


def test_a_store_of_a_later_format_is_not_touched(tmp_path: Path) -> None:
    store = made(tmp_path)
    add(store, tmp_path)
    store.objects.put("models/m.json", b'{"format": 2}', "*")
    with pytest.raises(Damaged, match="which a later inferd wrote"):
        store.move("m", "production", "1", BY)
