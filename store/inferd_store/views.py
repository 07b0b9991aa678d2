"""A store as plain documents for people's tables and machines' JSON."""

from __future__ import annotations

from dataclasses import asdict

from inferd_store.backup import Backup
from inferd_store.backups import Backups
from inferd_store.errors import Damaged, NotThere
from inferd_store.record import Record
from inferd_store.release import Json, difference
from inferd_store.store import Store


def models(store: Store) -> list[Json]:
    """Return every model with its versions and labels."""
    return [_model(store.record(name)) for name in store.names()]


def _model(record: Record) -> Json:
    return {
        "name": record.name,
        "versions": sorted(record.versions),
        "labels": {name: label.version for name, label in sorted(record.labels.items())},
    }


def versions(store: Store, name: str) -> list[Json]:
    """Return every version of a model with what its release tells.

    Raises:
        NotThere: no such model.
    """
    record = store.record(name)
    if not record.versions:
        raise NotThere(f"every version of model {name!r} was removed")
    return [_release(store, record, number) for number in sorted(record.versions)]


def version(store: Store, name: str, wanted: str) -> Json:
    """Return one version with all that is known of it.

    Raises:
        NotThere: there is none.
    """
    record = store.record(name)
    return _release(store, record, record.resolve(wanted))


def _release(store: Store, record: Record, number: int) -> Json:
    manifest = record.versions[number].manifest
    release = store.read_release(manifest)
    at = sorted(name for name, label in record.labels.items() if label.version == number)
    return {
        "name": record.name,
        "version": number,
        "labels": at,
        "size": release.size,
        "sealed": release.sealed,
        "signed": release.signed,
        "digest": manifest,
        **asdict(release),
    }


def diff(store: Store, name: str, before: str, after: str) -> Json:
    """Return in what two versions differ, by what people compare: [before, after].

    Raises:
        NotThere: there is no such version.
    """
    first, old = store.release(name, before)
    second, new = store.release(name, after)
    return {"name": name, "versions": [first, second], "differences": difference(old, new)}


def log(store: Store, name: str = "") -> list[Json]:
    """Return who did what, when, and why; the oldest first.

    Raises:
        NotThere: no such model.
    """
    return [asdict(event) for event in store.log(name)]


def backups(place: Backups) -> list[Json]:
    """Return every backup of a place, the oldest first; of a damaged one why it is."""
    found = []
    for name in place.names():
        try:
            found.append(backup(name, place.read(name)))
        except Damaged as error:
            found.append({"name": name, "damaged": str(error)})
    return found


def backup(name: str, made: Backup) -> Json:
    """Return a backup with what it has."""
    return {
        "name": name,
        "time": made.time,
        "who": made.who,
        "why": made.why,
        "store": made.store,
        "asked": list(made.asked),
        "models": {
            model: {"versions": list(saved.versions), "labels": dict(saved.labels)}
            for model, saved in made.models.items()
        },
        "size": made.size,
    }
