"""The answers that a process keeps: least recently used ones go first, none outlives its time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass

from inferd_server.cache.key import Key, Owner

OVERHEAD = 512
"""Bytes that an entry is taken to cost besides its answer: key, objects and tables."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """An answer, whose it is, and until when it may be used (monotonic seconds)."""

    owner: Owner
    value: bytes
    until: float

    @property
    def nbytes(self) -> int:
        """What it counts for."""
        return len(self.value) + OVERHEAD


class Shelf:
    """The entries of one owner, the least recently used first."""

    def __init__(self) -> None:
        self.keys: OrderedDict[Key, None] = OrderedDict()
        self.nbytes = 0


class Store:
    """Answers by key, within a budget in bytes. Every method may be called from any thread."""

    def __init__(self, max_bytes: int) -> None:
        """Be empty; `max_bytes` bounds all entries together."""
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, CachedAnswer] = OrderedDict()
        self._shelves: dict[Owner, Shelf] = {}
        self._nbytes = 0
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes held now."""
        return self._nbytes

    def __len__(self) -> int:
        """How many answers are held."""
        return len(self._entries)

    def get(self, key: Key, now: float) -> bytes | None:
        """Return the answer for a key, unless it is too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if now >= entry.until:
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            self._shelves[entry.owner].keys.move_to_end(key)
            return entry.value

    def put(self, key: Key, entry: CachedAnswer, max_bytes: int | None = None) -> None:
        """Keep an answer, and drop others for it; not if its owner is loaded no more.

        Args:
            key: of the request.
            entry: the answer; one that is larger than a bound is not kept.
            max_bytes: bound of its owner's entries; None: only that of all.
        """
        most = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        with self._lock:
            self._remove(key)
            shelf = self._shelves.get(entry.owner)
            if shelf is None or entry.nbytes > most:
                return
            while shelf.nbytes + entry.nbytes > most:
                self._remove(next(iter(shelf.keys)))
            while self._nbytes + entry.nbytes > self._max_bytes:
                self._remove(next(iter(self._entries)))
            self._entries[key] = entry
            shelf.keys[key] = None
            shelf.nbytes += entry.nbytes
            self._nbytes += entry.nbytes

    def retain(self, owners: Collection[Owner]) -> None:
        """Drop the entries of all other owners, and take none of theirs any more."""
        with self._lock:
            for owner in self._shelves.keys() - set(owners):
                for key in list(self._shelves[owner].keys):
                    self._remove(key)
                del self._shelves[owner]
            for owner in owners:
                self._shelves.setdefault(owner, Shelf())

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            shelf = self._shelves[entry.owner]
            del shelf.keys[key]
            shelf.nbytes -= entry.nbytes
            self._nbytes -= entry.nbytes
