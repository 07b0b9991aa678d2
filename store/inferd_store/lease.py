"""A lease: what a server uses of a store, for as long as it says so again and again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass

from inferd_store.errors import Damaged, NotThere
from inferd_store.objects import ANY, Objects
from inferd_store.release import FORMAT, packed, unpacked

LEASES = "leases/"
RECENT_S = 86400.0
"""Seconds for which a lease is kept that has ended: until then its versions count as served."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Versions that one server serves or keeps warm."""

    server: str
    """Host, process and a random part."""
    versions: Mapping[str, tuple[int, ...]]
    """By model."""
    expires: float
    """Seconds since the epoch."""

    def packed(self) -> bytes:
        """Return the bytes of its object."""
        return packed({"format": FORMAT, **asdict(self)})


class Leases:
    """What all servers of a store use. Any thread may call."""

    def __init__(self, objects: Objects) -> None:
        """Keep the objects of the store."""
        self._objects = objects

    def tell(self, lease: Lease) -> None:
        """Tell what a server uses.

        Raises:
            StoreError: the store cannot be written.
        """
        self._objects.put(f"{LEASES}{lease.server}.json", lease.packed(), ANY)

    def all(self) -> list[Lease]:
        """Return what servers say that they use, or did within the last day."""
        found = []
        for entry in self._objects.list(LEASES):
            # It may end meanwhile.
            with suppress(NotThere):
                found.append(read_lease(self._objects.get(entry.key).data))
        return found

    def forget(self, now: float) -> None:
        """Delete those that ended long ago.

        Args:
            now: seconds since the epoch.
        """
        for entry in self._objects.list(LEASES):
            if entry.modified < now - RECENT_S:
                self._objects.delete(entry.key)


def read_lease(data: bytes) -> Lease:
    """Read the object of a lease.

    Raises:
        Damaged: it is none.
    """
    document = unpacked(data, "a lease")
    try:
        versions = {name: tuple(map(int, used)) for name, used in document["versions"].items()}
        return Lease(str(document["server"]), versions, float(document["expires"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"a lease is damaged: {error!r}") from error


def holders(leases: Iterable[Lease], name: str, version: int, now: float) -> list[str]:
    """Return the servers that use a version.

    Args:
        leases: of all servers.
        name: of the model.
        version: of it.
        now: seconds since the epoch.
    """
    return [
        lease.server
        for lease in leases
        if lease.expires > now and version in lease.versions.get(name, ())
    ]
