"""Backups of a store: copies of it as it was at a time, in a place that has many of them.

inferd-backups.json     marks the place, and tells its format
blobs/, drafts/         contents of all backups, each once (blobs.py)
backups/<time>-<digest>.json  a backup: written last, and never changed
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from inferd_store.backup import Backup, Taken, read_backup
from inferd_store.blobs import BLOBS, Blobs
from inferd_store.errors import (
    Conflict,
    Damaged,
    NotAStore,
    NotThere,
)
from inferd_store.objects import (
    ABSENT,
    UNWATCHED,
    Objects,
    Progress,
    Watch,
    begin,
    is_url,
    open_objects,
)
from inferd_store.record import Event, Record, read_events, read_record
from inferd_store.release import StoredFile, digest_of, unpacked
from inferd_store.retention import Item, Rule, Verdict, judge
from inferd_store.store import MARKER as STORE_MARKER
from inferd_store.store import By, Store, name_of, timestamp

MARKER = "inferd-backups.json"
BACKUPS = "backups/"
BACKUP = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{16}")
"""The name of a backup: when it was made, and the first digits of its digest."""
TRIES = 10
"""Of a backup whose store loses versions meanwhile."""


@dataclass(frozen=True, slots=True)
class Made:
    """A backup that was made."""

    name: str
    backup: Backup
    sent: int
    """Bytes that the place lacked."""


class Backups:
    """A place for backups. Any thread and any process may use it; none is ever changed."""

    def __init__(self, objects: Objects, clock: Callable[[], float]) -> None:
        """Keep the objects of a place that is there.

        Args:
            objects: of the place.
            clock: seconds since the epoch.
        """
        self.objects = objects
        self.blobs = Blobs(objects, clock)
        self._clock = clock

    @property
    def address(self) -> str:
        """The folder or URL, as people write it."""
        return self.objects.address

    def names(self) -> list[str]:
        """Return the backups, the oldest first."""
        keys = [entry.key for entry in self.objects.list(BACKUPS)]
        names = [key.removeprefix(BACKUPS).removesuffix(".json") for key in keys]
        return sorted(name for name in names if BACKUP.fullmatch(name))

    def read(self, name: str) -> Backup:
        """Return a backup.

        Raises:
            Damaged: it is not what it was.
            NotThere: there is none.
        """
        if not BACKUP.fullmatch(name):
            raise NotThere(f"{name!r} is no backup: a name as `inferd models backups` prints it")
        try:
            return read_backup(self.objects.get(f"{BACKUPS}{name}.json").data, name)
        except NotThere:
            raise NotThere(f"{self.address} has no backup {name}") from None

    def latest(self, models: Sequence[str] = ()) -> str:
        """Return the newest backup that has some models.

        Raises:
            NotThere: there is none.
        """
        for name in reversed(self.names()):
            if not models or set(models) <= set(self.read(name).models):
                return name
        of = f" of {', '.join(models)}" if models else ""
        raise NotThere(f"{self.address} has no backup{of}")

    def make(
        self,
        store: Store,
        asked: Sequence[str],
        by: By,
        verify: bool = False,
        watch: Watch = UNWATCHED,
    ) -> Made:
        """Make a backup: only contents that are not here yet are sent, and it is visible last.

        Args:
            store: that is saved, and may change meanwhile.
            asked: models; none: all.
            by: who makes it.
            verify: read all that it needs there; what is damaged is sent again.
            watch: told of what is moved.

        Raises:
            Damaged: a content of the store is not what its digest says.
            NotThere: the store has no such model.
        """
        asked = sorted(set(asked))
        for name in asked:
            store.record(name)
        for _ in range(TRIES):
            heads = store.heads()
            try:
                return self._make(store, asked, by, verify, watch)
            except NotThere as error:
                if store.heads() == heads:
                    raise Damaged(f"{store.address} lacks a content: {error}") from error
        raise Conflict(f"{store.address} loses versions all the time; no backup was made")

    def _make(
        self,
        store: Store,
        asked: Sequence[str],
        by: By,
        verify: bool,
        watch: Watch,
    ) -> Made:
        taken, when = Taken(), timestamp(self._clock())
        for name in asked or [name_of(entry.key) for entry in store.heads()]:
            taken.take(store, name)
        files = taken.files
        with self.blobs.drafted(files) as renew:
            lacking = list(self.blobs.lacking(files.values(), self._newest(), verify, watch))
            watch.expected(sum(file.size for file in lacking) * (2 if verify else 1))
            for file in lacking:
                self._send(store, taken, file, verify, watch.moved)
                renew()
            self.blobs.confirm(files.values())
            backup = taken.backup(when, by, store.address, asked)
            return Made(self._publish(backup), backup, sum(file.size for file in lacking))

    def _newest(self) -> Mapping[str, int]:
        """Return the contents of the newest backup, which no rule removes."""
        for name in reversed(self.names()):
            try:
                return self.read(name).contents
            except (Damaged, NotThere):
                continue
        return {}

    def _send(
        self, store: Store, taken: Taken, file: StoredFile, verify: bool, progress: Progress
    ) -> None:
        data = taken.small.get(file.digest)
        if data is None:
            self.objects.write(BLOBS + file.digest, store.blobs.parts(file, progress))
        else:
            self.blobs.put(data)
            progress(file.size)
        if verify:
            self.blobs.check(file, progress)

    def _publish(self, backup: Backup) -> str:
        data = backup.packed()
        when = datetime.fromisoformat(backup.time).astimezone(UTC)
        moment = f"{when:%Y%m%dT%H%M%S}.{when.microsecond // 1000:03}Z"
        name = f"{moment}-{digest_of(data)[:16]}"
        self.objects.put(f"{BACKUPS}{name}.json", data, ABSENT)
        return name

    def check(self, name: str, watch: Watch = UNWATCHED) -> list[str]:
        """Read a whole backup; return what is wrong with it, a sentence for each content.

        Raises:
            StoreError: it cannot be read.
        """
        try:
            backup = self.read(name)
        except Damaged as error:
            return [str(error)]
        watch.expected(backup.size)
        wrong = []
        there = self.blobs.there()
        for digest, size in sorted(backup.contents.items()):
            file = StoredFile(f"the content {digest}", digest, size)
            try:
                if digest not in there:
                    raise NotThere(f"{file.path} is not in {self.address}")
                self.blobs.check(file, watch.moved)
            except (Damaged, NotThere) as error:
                wrong.append(str(error))
        return wrong

    def model(self, backup: Backup, name: str) -> tuple[Record, list[Event]]:
        """Return the record of a model of a backup, and all its events.

        Raises:
            Damaged: they are not what they were.
            NotThere: it has no such model.
        """
        saved = backup.saved(name)
        data = self.blobs.get(saved.record, f"the record of model {name!r}")
        what = f"the audit log of model {name!r}"
        events = [event for part in saved.log for event in read_events(self.blobs.get(part, what))]
        return read_record(data, name), events

    def judged(self, rule: Rule) -> list[Verdict]:
        """Return what a rule makes of the backups; those of the same models compete.

        Raises:
            Refused: the rule says nothing.
        """
        rule.check()
        kinds: dict[tuple[str, ...], list[Item]] = {}
        verdicts = []
        for name in self.names():
            try:
                kind = self.read(name).asked
            except Damaged as error:
                # It may be of a later format; and it is not the newest of any kind.
                verdicts.append(Verdict(name, str(error)))
                continue
            kinds.setdefault(kind, []).append(Item(name, moment_of(name)))
        verdicts += [one for items in kinds.values() for one in judge(rule, items, self._clock())]
        return sorted(verdicts, key=lambda verdict: verdict.key)

    def remove(self, names: Sequence[str]) -> int:
        """Remove backups, then contents that no other needs; return how many contents those were.

        Raises:
            Damaged: one that stays cannot be read, so nobody knows what it needs.
        """
        for name in names:
            self.objects.delete(f"{BACKUPS}{name}.json")
        try:
            return self.blobs.sweep(self._used)
        except Damaged as error:
            text = f"{len(names)} backups were removed, and nothing was swept of their contents"
            raise Damaged(f"{text}: {error}") from error

    def _used(self) -> set[str]:
        used: set[str] = set()
        for name in self.names():
            try:
                used |= self.read(name).contents.keys()
            except NotThere:
                # Removed by somebody else meanwhile.
                continue
        return used


def moment_of(name: str) -> float:
    """Return when a backup was made, by its name: seconds since the epoch."""
    text = name.partition("-")[0]
    return datetime.strptime(text, "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC).timestamp()


def check_apart(store: str, place: str) -> None:
    """Refuse a place for backups that would be lost together with the store.

    Raises:
        NotAStore: one is in the other.
    """
    if is_url(store) != is_url(place):
        return
    paths = [one.rstrip("/") if is_url(one) else str(Path(one).resolve()) for one in (store, place)]
    first, second = sorted(f"{path}/" for path in paths)
    if second.startswith(first):
        raise NotAStore(f"the place for backups {place} and the store {store} lie in each other")


def open_backups(address: str, clock: Callable[[], float], create: bool = False) -> Backups:
    """Return the place for backups at an address.

    Args:
        address: a folder, s3://BUCKET/PATH, gs:// or az://.
        clock: seconds since the epoch.
        create: make an empty one where nothing is.

    Raises:
        NotAStore: there is none, or something else.
    """
    objects = open_objects(address)
    try:
        unpacked(objects.get(MARKER).data, address)
    except NotThere as error:
        if objects.look(STORE_MARKER) is not None:
            raise NotAStore(
                f"{address} is a store of models; give backups a place of their own"
            ) from error
        if not create:
            raise NotAStore(
                f"{address} has no backups; `inferd models backup` makes some"
            ) from error
        begin(objects, MARKER, "place for backups")
    return Backups(objects, clock)
