"""Retention: a rule that says which versions of a model, and which backups, are kept."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from inferd_store.errors import NotThere, Refused
from inferd_store.lease import RECENT_S, Lease
from inferd_store.record import Event, Record
from inferd_store.store import By, Store

DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept: whatever one of the two says."""

    last: int | None = None
    """The newest, so many."""
    days: float | None = None
    """What is not older."""

    def check(self) -> None:
        """Refuse a rule that says nothing.

        Raises:
            Refused: it does, or a number is not one.
        """
        if self.last is None and self.days is None:
            raise Refused("what is to be kept? --keep-last N, --keep-days DAYS, or both")
        if self.last is not None and self.last < 1:
            raise Refused(f"--keep-last {self.last}: 1 or more was expected")
        if self.days is not None and not self.days >= 0:
            raise Refused(f"--keep-days {self.days:g}: 0 or more was expected")


@dataclass(frozen=True, slots=True)
class Item:
    """What may be removed."""

    key: str
    time: float
    """Seconds since the epoch."""
    held: str = ""
    """Why it is kept whatever the rule says."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of an item."""

    key: str
    kept: str
    """Why; "": it is to go."""


def judge(rule: Rule, items: Sequence[Item], now: float) -> list[Verdict]:
    """Return what becomes of every item; the newest is always kept.

    Args:
        rule: that says what is kept.
        items: the oldest first.
        now: seconds since the epoch.
    """
    newest = items[-max(1, rule.last or 0) :]
    oldest = now - DAY_S * (rule.days or 0.0)

    def why(item: Item) -> str:
        if item.held:
            return item.held
        if item in newest:
            return f"one of the newest {rule.last}" if (rule.last or 0) > 1 else "the newest"
        if rule.days is not None and item.time >= oldest:
            return f"not older than {rule.days:g} days"
        return ""

    return [Verdict(item.key, why(item)) for item in items]


def held(
    record: Record, events: Iterable[Event], leases: Collection[Lease], now: float
) -> Mapping[int, str]:
    """Return the versions that no rule removes, and why: what serves, did lately, or may again.

    Args:
        record: of the model.
        events: of it, those of the last day at least.
        leases: of servers, also those that ended lately.
        now: seconds since the epoch.
    """
    found: dict[int, str] = {}
    for name, label in sorted(record.labels.items()):
        found.setdefault(label.version, f"label {name} is at it")
    for lease in leases:
        served = "is" if lease.expires > now else "was lately"
        for version in lease.versions.get(record.name, ()):
            found.setdefault(version, f"{served} served by {lease.server}")
    for event in events:
        if event.before and event.label and seconds(event.time) > now - RECENT_S:
            found.setdefault(event.before, f"label {event.label} was at it until {event.time[:19]}")
    for name, label in sorted(record.labels.items()):
        there = [one for one in label.before if one in record.versions and one != label.version]
        if there:
            found.setdefault(there[-1], f"a rollback of {name} leads to it")
    return {version: why for version, why in found.items() if version in record.versions}


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of a version, or became of it."""

    name: str
    version: int
    kept: str
    """Why; "": it goes, or is gone."""


def retain(store: Store, names: Sequence[str], rule: Rule, now: float) -> list[Fate]:
    """Return what a rule makes of the versions of models; nothing is removed.

    Args:
        store: of the models.
        names: of them; none: all.
        rule: that says what is kept.
        now: seconds since the epoch.

    Raises:
        NotThere: there is no such model.
        Refused: the rule says nothing.
    """
    rule.check()
    leases, fates = store.leases.all(), []
    for name in names or store.names():
        record = store.record(name)
        why = held(record, store.audit.events(record), leases, now)
        items = [
            Item(str(number), seconds(version.time), why.get(number, ""))
            for number, version in sorted(record.versions.items())
        ]
        fates += [Fate(name, int(one.key), one.kept) for one in judge(rule, items, now)]
    return fates


def remove(store: Store, fates: Iterable[Fate], by: By) -> list[Fate]:
    """Remove the versions that are to go, and what nothing refers to then; return what became.

    One that is used again by now is kept.

    Raises:
        StoreError: the store cannot be changed.
    """
    became = []
    for fate in fates:
        if fate.kept:
            became.append(fate)
            continue
        try:
            store.remove(fate.name, str(fate.version), by, prune=False)
        except NotThere:
            pass
        except Refused as error:
            became.append(Fate(fate.name, fate.version, str(error)))
            continue
        became.append(fate)
    store.prune()
    return became


def seconds(time: str) -> float:
    """Return ISO 8601 as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()
