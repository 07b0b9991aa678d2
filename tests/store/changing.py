"""A process that changes a store, and is killed at the n-th line of the store's own code.

python -m tests.store.changing STORE FOLDER COMMAND LINE
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from inferd_store import retention
from inferd_store.backups import open_backups
from inferd_store.restoring import read_saved, restore
from inferd_store.retention import Rule
from inferd_store.store import open_store

from tests.killing import killed_at
from tests.store.releases import BY, add


def change(address: str, folder: Path, command: str) -> None:
    store = open_store(address)
    match command:
        case "add":
            add(store, folder, os.urandom(8))
        case "promote":
            record = store.record("m")
            store.move("m", "production", str(max(record.versions)), BY, "promote")
        case "rollback":
            store.rollback("m", "production", BY)
        case "label":
            store.move("m", "staging", "1", BY)
        case "remove":
            store.remove("m", "latest", BY)
        case "backup":
            open_backups(str(folder.parent / "backups"), time.time).make(store, (), BY)
        case "restore":
            place = open_backups(str(folder.parent / "backups"), time.time)
            restored = open_store(str(folder.parent / "restored"), create=True)
            restore(place, read_saved(place, place.latest()), restored, BY)
        case "prune":
            retention.remove(store, retention.retain(store, (), Rule(last=1), time.time()), BY)


if __name__ == "__main__":
    address, folder, command, line = sys.argv[1:]
    killed_at(int(line), "inferd_store", lambda: change(address, Path(folder), command))
