"""Backups for tests: a clock, an empty store to restore into, what the latest one has."""

from __future__ import annotations

from pathlib import Path

from inferd_store.backups import Backups
from inferd_store.objects import Watch
from inferd_store.restoring import Saved, read_saved
from inferd_store.store import Store, open_store

NOW = 1_700_000_000.0


class Ticking:
    """A clock that goes on by a second whenever somebody looks."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def empty(folder: Path) -> Store:
    return open_store(str(folder / "restored"), create=True)


def saved(place: Backups, *models: str) -> list[Saved]:
    return read_saved(place, place.latest(models), models)


def moved(into: list[int]) -> Watch:
    return Watch(into.append)


def blob(address: str, digest: str) -> Path:
    return Path(address) / "blobs/sha256" / digest
