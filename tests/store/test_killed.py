"""Whoever changes a store may be killed at any point: it opens, and shows whole versions alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from inferd_store import retention
from inferd_store.backups import open_backups
from inferd_store.restoring import read_saved, restore
from inferd_store.retention import Rule
from inferd_store.store import Store, open_store

from tests.killing import NEVER
from tests.store.releases import BY, add, made, whole

COMMANDS = ("add", "promote", "rollback", "label", "remove")
SOME, MANY = 2, 100
"""Times that each command is killed."""


def prepared(folder: Path, command: str) -> Store:
    store = made(folder)
    for content in (b"a", b"b", b"c"):
        add(store, folder, content)
    for version in ("1", "2"):
        store.move("m", "production", version, BY)
    store.move("m", "staging", "2", BY)
    return store


def run(store: Store, folder: Path, command: str, line: int) -> subprocess.CompletedProcess[str]:
    arguments = [store.address, str(folder / "added"), command, str(line)]
    return subprocess.run(
        [sys.executable, "-m", "tests.store.changing", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )


def kill(folder: Path, command: str, times: int) -> None:
    lines = int(run(prepared(folder / "first", command), folder, command, NEVER).stdout)
    chance = random.Random(command)
    for number in range(times):
        here = folder / str(number)
        store = prepared(here, command)
        before = store.record("m")
        ended = run(store, here, command, chance.randint(1, lines))
        assert ended.returncode == -signal.SIGKILL
        after = open_store(store.address)
        whole(after)
        record = after.record("m")
        # All of the change, or nothing of it.
        assert record.sequence in (before.sequence, before.sequence + 1)
        if record.sequence == before.sequence:
            assert record == before
        assert {"production", "staging"} <= set(record.labels)
        # And the next one finds no lock, no half and no rest in its way.
        number_added = add(after, here, b"next")
        after.move("m", "production", str(number_added), BY)
        whole(after)


def kill_backup(folder: Path, store: Store, line: int) -> None:
    place = open_backups(str(folder / "backups"), time.time, create=True)
    place.make(store, (), BY)
    older = place.names()
    add(store, folder, b"d")
    assert run(store, folder, "backup", line).returncode == -signal.SIGKILL
    assert older == place.names()[:1]
    assert [place.check(name) for name in place.names()] == [[]] * len(place.names())
    made = place.make(store, (), BY)
    assert place.check(made.name) == []
    assert made.backup.models["m"].versions == (1, 2, 3, 4)


def kill_restore(folder: Path, store: Store, line: int) -> None:
    place = open_backups(str(folder / "backups"), time.time, create=True)
    saved = read_saved(place, place.make(store, (), BY).name)
    assert run(store, folder, "restore", line).returncode == -signal.SIGKILL
    # All of the model, or nothing of it; and the next one finishes it.
    restored = open_store(str(folder / "restored"), create=True)
    whole(restored)
    restore(place, saved, restored, BY)
    whole(restored)
    assert restored.record("m").alike(store.record("m"))
    told = restored.log("m")
    assert [event.id for event in told[:-1]] == [event.id for event in store.log("m")]
    assert told[-1].what == "restore"


def kill_prune(folder: Path, store: Store, line: int) -> None:
    labels = store.record("m").labels
    aged(store)
    assert run(store, folder, "prune", line).returncode == -signal.SIGKILL
    whole(store)
    assert store.record("m").labels == labels
    add(store, folder, b"next")
    retention.remove(store, retention.retain(store, (), Rule(last=1), time.time()), BY)
    whole(store)
    assert sorted(store.record("m").versions) == [1, 2, 6]


def aged(store: Store) -> None:
    """Let every content be so old that it goes once nothing refers to it."""
    for number in range(2):
        add(store, store_folder(store).parent, b"old %d" % number)
    for path in (store_folder(store) / "blobs/sha256").iterdir():
        os.utime(path, (1e9, 1e9))


def store_folder(store: Store) -> Path:
    return Path(store.address)


KILLED = {"backup": kill_backup, "restore": kill_restore, "prune": kill_prune}


def kill_each_time(folder: Path, command: str, times: int) -> None:
    first = folder / "first"
    store = prepared(first, command)
    if command == "prune":
        aged(store)
    else:
        open_backups(str(first / "backups"), time.time, create=True).make(store, (), BY)
    if command == "backup":
        add(store, first, b"d")
    lines = int(run(store, first, command, NEVER).stdout)
    chance = random.Random(command)
    for number in range(times):
        here = folder / str(number)
        KILLED[command](here, prepared(here, command), chance.randint(1, lines))


@pytest.mark.parametrize("command", KILLED)
def test_who_is_killed_leaves_whole_backups_and_whole_models(tmp_path: Path, command: str) -> None:
    kill_each_time(tmp_path, command, SOME)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", KILLED)
def test_a_hundred_who_are_killed_leave_whole_backups_and_whole_models(
    tmp_path: Path, command: str
) -> None:
    kill_each_time(tmp_path, command, MANY)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_outlives_who_is_killed_while_changing_it(tmp_path: Path, command: str) -> None:
    kill(tmp_path, command, SOME)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_outlives_a_hundred_who_are_killed(tmp_path: Path, command: str) -> None:
    kill(tmp_path, command, MANY)
