"""A backup: what it is of, every content that it needs, and how both are taken from a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from inferd_store.errors import Damaged, NotThere, Refused
from inferd_store.record import check_name, packed_events
from inferd_store.release import FORMAT, Json, StoredFile, check_digest, digest_of, packed, unpacked
from inferd_store.store import By, Store

CHUNK = 256
"""Events of the audit log in one content: those that are full never change."""


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in a backup."""

    record: str
    """Digest of its record."""
    log: tuple[str, ...]
    """Digests of its events, in parts."""
    versions: tuple[int, ...]
    labels: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup: what it is of, and every content that it needs."""

    time: str
    """ISO 8601, UTC."""
    who: str
    why: str
    store: str
    """Address of the store that it is of."""
    asked: tuple[str, ...]
    """Models that were asked for; none: all of the store."""
    models: Mapping[str, SavedModel]
    contents: Mapping[str, int]
    """Bytes by digest."""

    @property
    def size(self) -> int:
        """Bytes of all contents."""
        return sum(self.contents.values())

    def packed(self) -> bytes:
        """Return the bytes of its object."""
        return packed({"format": FORMAT, **asdict(self)})

    def saved(self, name: str) -> SavedModel:
        """Return a model of it.

        Raises:
            NotThere: it has no such model.
        """
        if name not in self.models:
            known = ", ".join(sorted(self.models)) or "none"
            raise NotThere(f"the backup of {self.time} has no model {name!r}; it has {known}")
        return self.models[name]


def read_backup(data: bytes, name: str) -> Backup:
    """Read the object of a backup.

    Raises:
        Damaged: it is none, not what its name says, or of a later format.
    """
    what = f"the backup {name}"
    if digest_of(data)[:16] != name.rpartition("-")[2]:
        raise Damaged(f"{what} is damaged: it is not what its name says")
    document = unpacked(data, what)
    try:
        models = {str(one): _saved(one, saved) for one, saved in document["models"].items()}
        contents = {check_digest(str(d)): int(size) for d, size in document["contents"].items()}
        time, who, why, store = (str(document[key]) for key in ("time", "who", "why", "store"))
        asked = tuple(map(str, document["asked"]))
        return Backup(time, who, why, store, asked, models, contents)
    except (KeyError, TypeError, ValueError, AttributeError, Refused) as error:
        raise Damaged(f"{what} is damaged: {error!r}") from error


def _saved(name: str, saved: Json) -> SavedModel:
    check_name(name)
    log = tuple(check_digest(str(one)) for one in saved["log"])
    labels = {str(label): int(version) for label, version in saved["labels"].items()}
    versions = tuple(map(int, saved["versions"]))
    return SavedModel(check_digest(str(saved["record"])), log, versions, labels)


@dataclass(slots=True)
class Taken:
    """What is to be saved of a store, as it was at a time."""

    models: dict[str, SavedModel] = field(default_factory=dict)
    files: dict[str, StoredFile] = field(default_factory=dict)
    """Contents by digest, with what they are."""
    small: dict[str, bytes] = field(default_factory=dict)
    """Those that are no object of the store."""

    def backup(self, time: str, by: By, store: str, asked: Sequence[str]) -> Backup:
        """Return the backup that it makes."""
        sizes = {digest: file.size for digest, file in self.files.items()}
        return Backup(time, by.who, by.why, store, tuple(asked), self.models, sizes)

    def take(self, store: Store, name: str) -> None:
        """Take in a model: its record is one object, and all else follows from that.

        Raises:
            NotThere: there is none, or it loses a version just now.
        """
        record = store.record(name)
        events = store.audit.events(record)
        log = [packed_events(events[at : at + CHUNK]) for at in range(0, len(events), CHUNK)]
        for number, version in record.versions.items():
            self._take_version(store, f"version {number} of model {name!r}", version.manifest)
        self.models[name] = SavedModel(
            self._small(record.packed(), f"the record of model {name!r}"),
            tuple(self._small(part, f"the audit log of model {name!r}") for part in log),
            tuple(sorted(record.versions)),
            {label: one.version for label, one in sorted(record.labels.items())},
        )

    def _take_version(self, store: Store, what: str, manifest: str) -> None:
        release = store.read_release(manifest)
        files = [StoredFile(f"{what}: {one.path}", one.digest, one.size) for one in release.files]
        size = len(store.blobs.get(manifest, f"the manifest of {what}"))
        for file in (StoredFile(f"the manifest of {what}", manifest, size), *files):
            self.files[file.digest] = file

    def _small(self, data: bytes, what: str) -> str:
        digest = digest_of(data)
        self.small[digest] = data
        self.files[digest] = StoredFile(what, digest, len(data))
        return digest
