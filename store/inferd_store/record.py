"""The record of one model: its versions, labels and latest events, changed as one object.

Every change is a pure function from a record to the next one, so that a change that comes too late
can be tried again on what is there by then.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from inferd_store.errors import Conflict, Damaged, NotThere, Refused
from inferd_store.release import FORMAT, Json, packed, unpacked

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
KEPT_EVENTS = 16
"""The latest, in the record itself; all others are objects of the audit log alone."""
KEPT_MOVES = 32
"""Versions that a label remembers to have been at."""


@dataclass(frozen=True, slots=True)
class Version:
    """A version as the record tells of it."""

    manifest: str
    """Digest of the release's manifest."""
    time: str
    author: str
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Label:
    """A label: where it is, and where it was."""

    version: int
    before: tuple[int, ...] = ()
    """Versions that it was at, the latest last: where rollbacks lead."""
    moves: int = 0
    """How often it was moved."""


@dataclass(frozen=True, slots=True)
class Event:
    """What somebody did: who, what, when, why."""

    id: str
    time: str
    who: str
    what: str
    """add, remove, label, promote, rollback, unlabel or restore."""
    model: str
    version: int
    """0: it is about all of them."""
    label: str = ""
    before: int = 0
    """The version that the label was at; 0: none."""
    why: str = ""
    sequence: int = 0
    """Counts the events of a model from 1, without a gap."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the store knows of one model."""

    name: str
    versions: Mapping[int, Version] = field(default_factory=dict)
    labels: Mapping[str, Label] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    next_version: int = 1
    sequence: int = 0
    """Of the last event."""

    def resolve(self, wanted: str) -> int:
        """Return the version that "3", "@stable" or "latest" names.

        Raises:
            NotThere: there is none.
            Refused: it is neither a number nor a label.
        """
        if wanted.startswith("@"):
            return self.label(wanted[1:]).version
        if wanted == "latest" and self.versions:
            return max(self.versions)
        if not VERSION.fullmatch(wanted):
            raise Refused(f"{wanted!r} is no version: 1, 2, 3, ..., latest or @LABEL was expected")
        if int(wanted) not in self.versions:
            raise NotThere(f"model {self.name!r} has no version {wanted}; it has {self.told()}")
        return int(wanted)

    def label(self, name: str) -> Label:
        """Return a label.

        Raises:
            NotThere: there is none.
        """
        if name not in self.labels:
            known = ", ".join(sorted(self.labels)) or "none"
            raise NotThere(f"model {self.name!r} has no label {name!r}; it has {known}")
        return self.labels[name]

    def told(self) -> str:
        """Return the versions as a sentence lists them."""
        return ", ".join(map(str, sorted(self.versions))) or "none"

    def added(self, version: Version, sealed_as: int = 0) -> tuple[Record, int]:
        """Return the record with one version more, and the number that it got.

        Args:
            version: that is added.
            sealed_as: the one number that it may get; 0: any.

        Raises:
            Refused: it would get another one.
        """
        number = self.next_version
        if sealed_as and sealed_as != number:
            raise Refused(
                f"it was sealed as version {sealed_as} of model {self.name!r}, and would become "
                f"version {number}, as which no server would take it: seal the plain files in "
                f"{self.name}/{number}"
            )
        versions = {**self.versions, number: version}
        return replace(self, versions=versions, next_version=number + 1), number

    def removed(self, version: int) -> Record:
        """Return the record without a version, whose number is given to no other one.

        Raises:
            NotThere: it is not there.
            Refused: a label is at it.
        """
        self.resolve(str(version))
        if names := sorted(n for n, label in self.labels.items() if label.version == version):
            raise Refused(f"label {names[0]!r} is at version {version}; move it first")
        left = {number: one for number, one in self.versions.items() if number != version}
        return replace(self, versions=left)

    def moved(self, name: str, version: int, seen: int) -> Record:
        """Return the record with a label somewhere else.

        Args:
            name: of the label.
            version: where it goes.
            seen: how often it had been moved when this was decided.

        Raises:
            Conflict: it was moved since.
            NotThere: the version is not there.
            Refused: this can be no label.
        """
        check_label(name)
        self.resolve(str(version))
        label = self._unmoved(name, seen)
        before = label.before
        if label.version and label.version != version:
            before = (*before, label.version)[-KEPT_MOVES:]
        there = Label(version, before, label.moves + 1)
        return replace(self, labels={**self.labels, name: there})

    def rolled_back(self, name: str, seen: int) -> Record:
        """Return the record with a label where it was before.

        Raises:
            Conflict: it was moved since `seen`.
            NotThere: there is no such label, or nothing that it was at before.
        """
        self.label(name)
        label = self._unmoved(name, seen)
        there = [version for version in label.before if version in self.versions]
        if not there:
            raise NotThere(f"label {name!r} of model {self.name!r} was at no other version before")
        back = Label(there[-1], tuple(there[:-1]), label.moves + 1)
        return replace(self, labels={**self.labels, name: back})

    def unlabelled(self, name: str) -> Record:
        """Return the record without a label.

        Raises:
            NotThere: there is none.
        """
        self.label(name)
        return replace(self, labels={n: one for n, one in self.labels.items() if n != name})

    def told_of(self, event: Event) -> tuple[Record, Event]:
        """Return the record with an event more, and that event."""
        numbered = replace(event, sequence=self.sequence + 1)
        events = (*self.events, numbered)
        return replace(self, events=events, sequence=numbered.sequence), numbered

    def shortened(self) -> tuple[Record, tuple[Event, ...]]:
        """Return the record with its latest events alone, and those that it lets go."""
        kept, old = self.events[-KEPT_EVENTS:], self.events[:-KEPT_EVENTS]
        return replace(self, events=kept), old

    def alike(self, given: Record) -> bool:
        """True if versions and labels are as a backup has them."""
        at, there = (
            {name: label.version for name, label in one.labels.items()} for one in (self, given)
        )
        same = self.versions == given.versions and at == there
        return same and self.next_version >= given.next_version

    def check_replaceable(self, given: Record, force: bool) -> None:
        """See that a backup's record may take this one's place.

        Raises:
            Refused: it may not.
        """
        for number in sorted(self.versions.keys() & given.versions.keys()):
            if self.versions[number].manifest != given.versions[number].manifest:
                raise Refused(
                    f"version {number} of model {self.name!r} in the store is another one than in "
                    "the backup, and a number stands for one content: restore into an empty "
                    "store, or remove that version first"
                )
        if not force:
            raise Refused(
                f"model {self.name!r} is not as the backup has it: the store has versions "
                f"{self.told()} and labels {self.told_labels()}, the backup {given.told()} and "
                f"{given.told_labels()}; --force replaces what is there"
            )

    def told_labels(self) -> str:
        """Return the labels as a sentence lists them."""
        at = (f"{name}={label.version}" for name, label in sorted(self.labels.items()))
        return ", ".join(at) or "none"

    def restored(self, given: Record, told: Mapping[int, Event], events: Sequence[Event]) -> Record:
        """Return the record as a backup has it; no event that was told is lost.

        Args:
            given: of the backup.
            told: all events of the store, by their numbers.
            events: all of the backup.
        """
        ids = {event.id for event in told.values()}
        last = max(told, default=0)
        new = [event for event in events if event.id not in ids]
        numbered = tuple(replace(one, sequence=last + n) for n, one in enumerate(new, 1))
        labels = {
            # Whoever saw one of them before moves neither.
            name: replace(label, moves=max(label.moves, self._moves(name)) + 1)
            for name, label in given.labels.items()
        }
        return Record(
            self.name,
            given.versions,
            labels,
            (*self.events, *numbered),
            max(self.next_version, given.next_version),
            last + len(numbered),
        )

    def _moves(self, name: str) -> int:
        return self.labels.get(name, Label(0)).moves

    def packed(self) -> bytes:
        """Return the bytes of the record's object."""
        return packed({"format": FORMAT, **asdict(self)})

    def _unmoved(self, name: str, seen: int) -> Label:
        label = self.labels.get(name, Label(0))
        if label.moves != seen:
            moved = next((one for one in reversed(self.events) if one.label == name), None)
            by = f" by {moved.who}" if moved else ""
            raise Conflict(
                f"label {name!r} of model {self.name!r} was moved to version {label.version}"
                f"{by} meanwhile: look at it, and move it again if that is still meant"
            )
        return label


def read_record(data: bytes, name: str) -> Record:
    """Read the object of a record.

    Raises:
        Damaged: it is none.
    """
    document = unpacked(data, f"the record of model {name!r}")
    try:
        return Record(
            name=str(document["name"]),
            versions={int(n): _version(one) for n, one in document["versions"].items()},
            labels={str(n): _label(one) for n, one in document["labels"].items()},
            events=tuple(Event(**one) for one in document["events"]),
            next_version=int(document["next_version"]),
            sequence=int(document["sequence"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Damaged(f"the record of model {name!r} is damaged: {error!r}") from error


def read_event(data: bytes) -> Event:
    """Read an object of the audit log.

    Raises:
        Damaged: it is none.
    """
    document = unpacked(data, "an event of the audit log")
    del document["format"]
    try:
        return Event(**document)
    except TypeError as error:
        raise Damaged(f"an event of the audit log is damaged: {error}") from error


def packed_events(events: Sequence[Event]) -> bytes:
    """Return the bytes of a part of an audit log."""
    return packed({"format": FORMAT, "events": [asdict(event) for event in events]})


def read_events(data: bytes) -> list[Event]:
    """Read a part of an audit log.

    Raises:
        Damaged: it is none.
    """
    document = unpacked(data, "a part of the audit log")
    try:
        return [Event(**one) for one in document["events"]]
    except (KeyError, TypeError) as error:
        raise Damaged(f"a part of the audit log is damaged: {error}") from error


def packed_event(event: Event) -> bytes:
    """Return the bytes of an event's object."""
    return packed({"format": FORMAT, **asdict(event)})


def _version(one: Json) -> Version:
    return Version(one["manifest"], one["time"], one["author"], tuple(one["tags"]))


def _label(one: Mapping[str, Any]) -> Label:
    return Label(int(one["version"]), tuple(map(int, one["before"])), int(one["moves"]))


def check_name(name: str) -> None:
    """Refuse what can be no model's name.

    Raises:
        Refused: it is none.
    """
    if not NAME.fullmatch(name):
        raise Refused(
            f"{name!r} cannot be the name of a model: letters, digits, '_', '-' and '.' may be in "
            "it, it does not begin with a dot or a dash, and has 128 characters at most"
        )


def check_label(name: str) -> None:
    """Refuse what can be no label's name.

    Raises:
        Refused: it is none.
    """
    if not LABEL.fullmatch(name) or name == "latest":
        raise Refused(
            f"{name!r} cannot be a label: letters, digits, '_', '-' and '.' may be in it, and it "
            "begins with a letter; 'latest' is none, because it is the highest version"
        )
