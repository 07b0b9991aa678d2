"""Whoever changes a store may be killed at any point: it opens, and shows whole versions alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from inferd_store.store import Store, open_store

from tests.store.releases import BY, add, made, whole

COMMANDS = ("add", "promote", "rollback", "label", "remove")
SOME, MANY = 2, 100
"""Times that each command is killed."""
NEVER = 10**9


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


@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_outlives_who_is_killed_while_changing_it(tmp_path: Path, command: str) -> None:
    kill(tmp_path, command, SOME)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_store_outlives_a_hundred_who_are_killed(tmp_path: Path, command: str) -> None:
    kill(tmp_path, command, MANY)
