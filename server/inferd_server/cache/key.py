"""The key of a request: equal keys mean equal answers but for the id."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from inferd.tensors import Buffer

from inferd_server.monitoring.series import Series
from inferd_server.monitoring.statistics import Statistics

FORMAT = b"inferd response 1"
"""Stands in every key: servers that would read a stored answer otherwise never meet it."""

Key: TypeAlias = bytes
"""A SHA-256 digest."""


class Owner(NamedTuple):
    """A model version and the digest of its files: a reload of other bytes is another owner."""

    model: str
    version: int
    digest: str


class KeyBase:
    """What the keys of requests that look alike have in common. Any thread may call."""

    def __init__(self, owner: Owner, described: Iterable[Sequence[object]]) -> None:
        """Prepare.

        Args:
            owner: whose answers they are.
            described: all else that decides about the answer but the elements of the inputs:
                each input's name, datatype and shape, and what is asked of each output.
        """
        self._hash = hashlib.sha256(FORMAT)
        # A repr quotes its strings, so that no two descriptions read alike.
        for part in (repr(tuple(owner)), repr([tuple(parts) for parts in described])):
            _add(self._hash, part.encode(errors="surrogatepass"))

    def key(self, elements: Iterable[Buffer]) -> Key:
        """Return the key of a request; `elements` as they travel, in the signature's order."""
        found = self._hash.copy()
        for data in elements:
            _add(found, data)
        return found.digest()


def _add(to: hashlib._Hash, data: Buffer) -> None:
    to.update(len(data).to_bytes(8, "little"))
    to.update(data)


@dataclass(frozen=True, slots=True)
class Form:
    """What the cache knows of requests that look alike."""

    base: KeyBase
    owner: Owner
    ttl: float
    """Seconds that an answer may be used."""
    max_bytes: int | None
    """Of all answers of the model in this process; None: as many as there may be in all."""
    statistics: Statistics
    series: Series
