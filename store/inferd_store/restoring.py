"""Restoring: models of a backup brought back into a store."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from inferd_store.backups import Backups
from inferd_store.blobs import BLOBS
from inferd_store.errors import Damaged, NotThere
from inferd_store.objects import UNWATCHED, Watch
from inferd_store.record import Event, Record
from inferd_store.release import StoredFile, read_release
from inferd_store.store import By, Store, name_of

SAME, RESTORED = "same", "restored"


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a model."""

    name: str
    what: str
    """SAME: it was as the backup has it; RESTORED."""
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A model of a backup, read."""

    record: Record
    events: Sequence[Event]
    files: Sequence[StoredFile]

    @property
    def versions(self) -> tuple[int, ...]:
        """Its versions, sorted."""
        return tuple(sorted(self.record.versions))


def read_saved(place: Backups, name: str, models: Sequence[str] = ()) -> list[Saved]:
    """Return models of a backup.

    Args:
        place: of the backup.
        name: of the backup.
        models: that are wanted; none: all.

    Raises:
        Damaged: the backup is not what it was.
        NotThere: it has no such model.
    """
    backup = place.read(name)
    return [_read(place, *place.model(backup, one)) for one in models or sorted(backup.models)]


def _read(place: Backups, record: Record, events: Sequence[Event]) -> Saved:
    files: dict[str, StoredFile] = {}
    for number, version in record.versions.items():
        what = f"version {number} of model {record.name!r}"
        data = place.blobs.get(version.manifest, f"the manifest of {what}")
        files[version.manifest] = StoredFile(f"the manifest of {what}", version.manifest, len(data))
        for file in read_release(data, version.manifest).files:
            files[file.digest] = StoredFile(f"{what}: {file.path}", file.digest, file.size)
    return Saved(record, events, list(files.values()))


def restore(
    place: Backups,
    models: Sequence[Saved],
    store: Store,
    by: By,
    force: bool = False,
    verify: bool = False,
    watch: Watch = UNWATCHED,
) -> list[Restored]:
    """Bring models of a backup back; nothing of one is visible before all of it is there.

    Args:
        place: of the backup.
        models: of it.
        store: that gets them.
        by: who restores them.
        force: replace what the store has otherwise.
        verify: read what the store has already; what is damaged is brought back, too.
        watch: told of what is moved.

    Raises:
        Damaged: a content of the backup is not what its digest says.
        Refused: the store has one of them otherwise; nothing was changed.
    """
    missing = [one for one in models if not _settled(store, one, force)]
    files = {file.digest: file for one in models for file in one.files}
    with store.blobs.drafted(files) as renew:
        lacking = list(store.blobs.lacking(files.values(), referred(store), verify, watch))
        watch.expected(sum(file.size for file in lacking))
        for file in lacking:
            store.objects.write(BLOBS + file.digest, place.blobs.parts(file, watch.moved))
            renew()
        store.blobs.confirm(files.values())
        for one in missing:
            store.adopt(one.record, one.events, by, force)
    return [
        Restored(one.record.name, RESTORED if one in missing else SAME, one.versions)
        for one in models
    ]


def referred(store: Store) -> set[str]:
    """Return the digests that versions refer to, as far as the store can still be read."""
    found: set[str] = set()
    for entry in store.heads():
        with suppress(Damaged):
            for version in store.record(name_of(entry.key)).versions.values():
                found.add(version.manifest)
                with suppress(Damaged, NotThere):
                    release = store.read_release(version.manifest)
                    found.update(file.digest for file in release.files)
    return found


def _settled(store: Store, one: Saved, force: bool) -> bool:
    """True if the store has a model as the backup has it.

    Raises:
        Refused: it has it otherwise.
    """
    current = store.known(one.record.name)
    if current is None:
        return False
    if current.alike(one.record):
        return True
    current.check_replaceable(one.record, force)
    return False
