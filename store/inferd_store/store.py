"""A store of models: releases, labels and the audit log, over objects.

inferd-store.json             marks the store, and tells its format
blobs/, drafts/               files and manifests, which never change (blobs.py)
models/<name>.json            the record of a model, the one object that its changes replace
audit/<name>/<sequence>.json  every event, once and for all
leases/<server>.json          what servers use, for as long as they say so
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

from inferd_store.audit import AuditLog
from inferd_store.blobs import BLOBS, Blobs
from inferd_store.errors import Conflict, InUse, NotAStore, NotThere, StoreError
from inferd_store.lease import Leases, holders
from inferd_store.objects import (
    ABSENT,
    Entry,
    Objects,
    Progress,
    begin,
    is_url,
    nothing,
    open_objects,
    parts_of,
)
from inferd_store.record import (
    Event,
    Label,
    Record,
    Version,
    check_name,
    read_record,
)
from inferd_store.release import Release, StoredFile, digest_of, read_release

MARKER = "inferd-store.json"
MODELS = "models/"
MOST_TRIES = 200
"""Of one change, while others change the same model."""
Change: TypeAlias = Callable[[Record], tuple[Record, Event]]


@dataclass(frozen=True, slots=True)
class By:
    """Who changes something, and why."""

    who: str
    why: str = ""


class Store:
    """Models as releases. Any thread and any process may change it; each change is one step."""

    def __init__(
        self,
        objects: Objects,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep the objects of a store that is there.

        Args:
            objects: of the store.
            clock: seconds since the epoch.
            sleep: waits before a change is tried again.
        """
        self.objects = objects
        self.blobs = Blobs(objects, clock)
        self.audit = AuditLog(objects)
        self.leases = Leases(objects)
        self._clock = clock
        self._sleep = sleep

    @property
    def address(self) -> str:
        """The folder or URL, as people write it."""
        return self.objects.address

    def heads(self) -> list[Entry]:
        """Return the objects of all records: one whose etag stayed has not changed."""
        found = self.objects.list(MODELS)
        return [entry for entry in found if entry.key.endswith(".json")]

    def names(self) -> list[str]:
        """Return the models, sorted; those of which every version was removed are left out."""
        names = [name_of(entry.key) for entry in self.heads()]
        return [name for name in names if self.record(name).versions]

    def record(self, name: str) -> Record:
        """Return what is known of a model.

        Raises:
            NotThere: nothing is.
            Refused: this can be no model's name.
        """
        check_name(name)
        try:
            return read_record(self.objects.get(key_of(name)).data, name)
        except NotThere:
            raise NotThere(f"the store {self.address} has no model {name!r}") from None

    def release(self, name: str, version: str) -> tuple[int, Release]:
        """Return a version by its number, "@label" or "latest", and which one that is.

        Raises:
            NotThere: there is none.
        """
        record = self.record(name)
        number = record.resolve(version)
        return number, self.read_release(record.versions[number].manifest)

    def read_release(self, manifest: str) -> Release:
        """Return the release of a manifest.

        Raises:
            Damaged: it is not what its digest says.
        """
        return read_release(self.objects.get(BLOBS + manifest).data, manifest)

    def add(
        self,
        name: str,
        release: Release,
        sources: Sequence[tuple[StoredFile, Path]],
        by: By,
        progress: Progress = nothing,
        unchanged: Callable[[], None] = lambda: None,
    ) -> Event:
        """Add a release that was checked; the event has the version that it became.

        Nothing of it is visible before all of it is there.

        Args:
            name: of the model, which may be new.
            release: what is added.
            sources: where its files are.
            by: who adds it.
            progress: told of bytes that were sent.
            unchanged: called before the release becomes visible; raises if a source changed.

        Raises:
            Refused: it was sealed as another version than it would become.
        """
        self._check_told(name, release.about.parents)
        manifest, about = release.packed(), release.about
        version = Version(digest_of(manifest), release.time, about.author, about.tags)

        def change(record: Record) -> tuple[Record, Event]:
            following, number = record.added(version, release.sealed_as)
            return following, self._event(by, "add", name, number)

        with self.blobs.drafted({version.manifest, *(file.digest for file, _ in sources)}) as renew:
            for file, path in sources:
                self.blobs.send(file, parts_of(path, progress), progress)
                renew()
            self.blobs.put(manifest)
            self.blobs.confirm(file for file, _ in sources)
            unchanged()
            return self._change(name, change, new=True)

    def _check_told(self, name: str, parents: Sequence[int]) -> None:
        """Refuse a name that no model can have, and parents that there never were."""
        check_name(name)
        if parents:
            # Nobody can have made it from what there never was.
            last = self.record(name).next_version
            if wrong := [parent for parent in parents if not 0 < parent < last]:
                raise NotThere(f"model {name!r} never had a version {wrong[0]}, named as a parent")

    def known(self, name: str) -> Record | None:
        """Return what is known of a model; None: nothing is."""
        try:
            return self.record(name)
        except NotThere:
            return None

    def adopt(self, given: Record, events: Sequence[Event], by: By, force: bool) -> Event:
        """Take a model's record from a backup, of which every content is there.

        Args:
            given: the record.
            events: of the model, all of them.
            by: who restores it.
            force: in the place of another one.

        Raises:
            Refused: there is another one, which may not be replaced.
        """
        name = given.name

        def change(record: Record) -> tuple[Record, Event]:
            if record.sequence:
                record.check_replaceable(given, force)
            restored = record.restored(given, self.audit.told(record), events)
            return restored, self._event(by, "restore", name, 0)

        event = self._change(name, change, new=True, many=True)
        self._shorten(name)
        return event

    def _shorten(self, name: str) -> None:
        """Write the events of a record into the audit log, and keep the latest alone."""
        # The record has all of them as long as that was not done.
        with suppress(StoreError):
            record, etag = self._current(name, new=False)
            self.audit.keep(record.events)
            self.objects.put(key_of(name), record.shortened()[0].packed(), etag)

    def move(
        self,
        name: str,
        label: str,
        version: str,
        by: By,
        what: str = "label",
        seen: Label | None = None,
    ) -> Event:
        """Move a label to a version; somebody who moved it meanwhile wins.

        Args:
            name: of the model.
            label: which may be new.
            version: its number, "@label" or "latest".
            by: who moves it.
            what: this is called in the audit log.
            seen: the label as it was when this was decided; None: as it is now.

        Raises:
            Conflict: it was moved since.
            NotThere: no such model or version.
            Refused: this can be no label.
        """
        now = self.record(name)
        number = now.resolve(version)
        before = seen or now.labels.get(label, Label(0))

        def change(record: Record) -> tuple[Record, Event]:
            moved = record.moved(label, number, before.moves)
            return moved, self._event(by, what, name, number, label, before.version)

        return self._change(name, change)

    def rollback(self, name: str, label: str, by: By) -> Event:
        """Move a label back to where it was before.

        Raises:
            Conflict: somebody else moved it meanwhile.
            NotThere: no such model or label, or it was nowhere before.
        """
        before = self.record(name).label(label)

        def change(record: Record) -> tuple[Record, Event]:
            back = record.rolled_back(label, before.moves)
            number = back.labels[label].version
            return back, self._event(by, "rollback", name, number, label, before.version)

        return self._change(name, change)

    def unlabel(self, name: str, label: str, by: By) -> Event:
        """Remove a label.

        Raises:
            NotThere: no such model or label.
        """

        def change(record: Record) -> tuple[Record, Event]:
            before = record.label(label).version
            return record.unlabelled(label), self._event(by, "unlabel", name, before, label, before)

        return self._change(name, change)

    def remove(self, name: str, version: str, by: By, prune: bool = True) -> Event:
        """Remove a version that no label and no server uses.

        Args:
            name: of the model.
            version: its number, "@label" or "latest".
            by: who removes it.
            prune: delete contents that nothing refers to any more, too.

        Raises:
            InUse: a server uses it.
            NotThere: no such model or version.
            Refused: a label is at it.
        """
        number = self.record(name).resolve(version)

        def change(record: Record) -> tuple[Record, Event]:
            without = record.removed(number)
            if users := holders(self.leases.all(), name, number, self._clock()):
                raise InUse(f"version {number} of model {name!r} is served by {', '.join(users)}")
            return without, self._event(by, "remove", name, number)

        event = self._change(name, change)
        if prune:
            self.prune()
        return event

    def prune(self) -> int:
        """Delete contents that nothing refers to any more; return how many those were."""
        gone = self.blobs.sweep(self.used)
        self.leases.forget(self._clock())
        return gone

    def used(self) -> set[str]:
        """Return the digests of everything that a version refers to."""
        used: set[str] = set()
        for entry in self.heads():
            for version in self.record(name_of(entry.key)).versions.values():
                release = self.read_release(version.manifest)
                used |= {version.manifest, *(file.digest for file in release.files)}
        return used

    def log(self, name: str = "") -> list[Event]:
        """Return the events of a model, or of all, the oldest first.

        Raises:
            NotThere: no such model.
        """
        names = [name] if name else [name_of(entry.key) for entry in self.heads()]
        found = [event for one in names for event in self.audit.events(self.record(one))]
        return sorted(found, key=lambda event: (event.time, event.model, event.sequence))

    def _event(
        self, by: By, what: str, name: str, version: int, label: str = "", before: int = 0
    ) -> Event:
        when = timestamp(self._clock())
        return Event(uuid4().hex, when, by.who, what, name, version, label, before, by.why)

    def _change(self, name: str, change: Change, new: bool = False, many: bool = False) -> Event:
        """Change the record of a model, on whatever is there by then; return the event.

        Args:
            name: of the model.
            change: from the record to the next one.
            new: there may be none.
            many: events came with it that nobody may see before it is made.
        """
        ids: set[str] = set()
        for attempt in range(MOST_TRIES):
            record, etag = self._current(name, new)
            # The answer to a change that was made may have been lost on its way.
            done = next((event for event in record.events if event.id in ids), None)
            if done is None:
                following, done = self._next(record, change, many)
                ids.add(done.id)
                try:
                    self.objects.put(key_of(name), following.packed(), etag)
                except Conflict:
                    self._sleep(random.uniform(0, min(0.5, 0.01 * 2 ** min(attempt, 6))))  # noqa: S311 nobody must not guess it
                    continue
            if not many:
                self.audit.finish(done)
            return done
        raise Conflict(f"model {name!r} is changed by others all the time; nothing was done")

    def _next(self, record: Record, change: Change, many: bool) -> tuple[Record, Event]:
        following, event = change(record)
        following, event = following.told_of(event)
        if not many:
            following, old = following.shortened()
            self.audit.keep(old)
        return following, event

    def _current(self, name: str, new: bool) -> tuple[Record, str]:
        check_name(name)
        try:
            found = self.objects.get(key_of(name))
        except NotThere:
            if new:
                return Record(name), ABSENT
            raise NotThere(f"the store {self.address} has no model {name!r}") from None
        return read_record(found.data, name), found.etag


def name_of(key: str) -> str:
    """Return the model of a record's key."""
    return key.removeprefix(MODELS).removesuffix(".json")


def key_of(name: str) -> str:
    """Return the key of a model's record."""
    return f"{MODELS}{name}.json"


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def is_store(address: str) -> bool:
    """True for a folder that is a store, or the URL of whatever is one or not."""
    return is_url(address) or (Path(address) / MARKER).is_file()


def open_store(address: str, create: bool = False) -> Store:
    """Return the store at an address.

    Args:
        address: a folder, s3://BUCKET/PATH, gs:// or az://.
        create: make an empty one where nothing is.

    Raises:
        NotAStore: there is none, or something else.
    """
    objects = open_objects(address)
    try:
        objects.get(MARKER)
    except NotThere as error:
        if not create:
            raise NotAStore(
                f"{address} is no store of models; `inferd models add` makes one where nothing is"
            ) from error
        begin(objects, MARKER, "store")
    return Store(objects)
