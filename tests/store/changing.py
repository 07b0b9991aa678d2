"""A process that changes a store, and is killed at the n-th line of the store's own code.

python -m tests.store.changing STORE FOLDER COMMAND LINE
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from inferd_store import retention
from inferd_store.backups import open_backups
from inferd_store.restoring import read_saved, restore
from inferd_store.retention import Rule
from inferd_store.store import open_store

from tests.store.releases import BY, add


def main(address: str, folder: Path, command: str, line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if "inferd_store" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    change(address, folder, command)
    sys.settrace(None)
    sys.stdout.write(str(line - left))


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
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
