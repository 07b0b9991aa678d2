"""Retention: which versions and backups a rule keeps, and what no rule removes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from inferd_store.adding import Sources, draft_of
from inferd_store.blobs import DRAFT_S, KEPT_S
from inferd_store.errors import Refused
from inferd_store.lease import RECENT_S, Lease
from inferd_store.record import Event, Label, Record, Version
from inferd_store.retention import DAY_S, Fate, Item, Rule, held, judge, remove, retain
from inferd_store.store import Store

from tests.store.releases import BY, add, made, whole

NOW = 100 * DAY_S
EARLY = "1970-01-01T00:00:00.000+00:00"
YESTERDAY = "1970-04-10T12:00:00.000+00:00"
"""Half a day before NOW."""


def kept(rule: Rule, items: list[Item]) -> list[str]:
    return [one.key for one in judge(rule, items, NOW) if one.kept]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        (Rule(last=1), ["4"]),
        (Rule(last=2), ["3", "4"]),
        (Rule(last=9), ["1", "2", "3", "4"]),
        (Rule(days=15), ["3", "4"]),
        (Rule(days=1000), ["1", "2", "3", "4"]),
        (Rule(last=1, days=25), ["2", "3", "4"]),
        (Rule(last=3, days=5), ["2", "3", "4"]),
        # Whatever it says, the newest stays.
        (Rule(days=0), ["4"]),
    ],
)
def test_a_rule_keeps_the_newest_and_what_is_young(rule: Rule, left: list[str]) -> None:
    ages = {"1": 30, "2": 20, "3": 10, "4": 2}
    assert kept(rule, [Item(key, NOW - days * DAY_S) for key, days in ages.items()]) == left


def test_what_is_held_is_kept_and_counts_as_none_of_the_newest_but_itself() -> None:
    items = [Item("1", 0.0, "label stable is at it"), Item("2", 0.0), Item("3", 0.0)]
    assert judge(Rule(last=1), items, NOW)[0].kept == "label stable is at it"
    assert kept(Rule(last=1), items) == ["1", "3"]
    assert judge(Rule(last=1), [], NOW) == []


@pytest.mark.parametrize("rule", [Rule(), Rule(last=0), Rule(last=-1), Rule(days=-1.0)])
def test_a_rule_that_says_nothing_is_refused(rule: Rule) -> None:
    with pytest.raises(Refused, match="keep"):
        rule.check()


def test_what_serves_or_did_lately_or_may_again_is_held() -> None:
    record = Record(
        "m",
        {number: Version("", EARLY, "") for number in range(1, 9)},
        {"production": Label(2, (1, 3)), "staging": Label(4)},
    )
    events = [
        Event("", YESTERDAY, "", "unlabel", "m", 5, "candidate", 5),
        Event("", EARLY, "", "label", "m", 4, "staging", 6),
    ]
    leases = [
        Lease("now", {"m": (7,), "other": (6,)}, NOW + 1),
        Lease("before", {"m": (8, 99)}, NOW - 1),
    ]
    assert held(record, events, leases, NOW) == {
        2: "label production is at it",
        3: "a rollback of production leads to it",
        4: "label staging is at it",
        5: "label candidate was at it until 1970-04-10T12:00:00",
        7: "is served by now",
        8: "was lately served by before",
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store whose model has five versions: the first in production, the second served."""
    store = made(tmp_path)
    for number in range(5):
        add(store, tmp_path, b"%d" % number)
    store.move("m", "production", "1", BY)
    store.leases.tell(Lease("host", {"m": (2,)}, 0.0))
    return store


def test_a_rule_is_told_first_and_removes_what_it_said(store: Store) -> None:
    fates = retain(store, (), Rule(last=1), NOW)
    assert [fate.version for fate in fates if not fate.kept] == [3, 4]
    assert sorted(store.record("m").versions) == [1, 2, 3, 4, 5]
    assert remove(store, fates, BY) == fates
    assert sorted(store.record("m").versions) == [1, 2, 5]
    assert [event.what for event in store.log("m")][-2:] == ["remove", "remove"]
    whole(store)


def test_a_version_that_is_labelled_meanwhile_stays(store: Store) -> None:
    fates = retain(store, ("m",), Rule(last=1), NOW)
    store.move("m", "staging", "3", BY)
    became = remove(store, fates, BY)
    assert [fate.version for fate in became if not fate.kept] == [4]
    assert Fate("m", 3, "label 'staging' is at version 3; move it first") in became


def age(store: Store) -> None:
    """Let every content be old."""
    for path in (Path(store.address) / "blobs/sha256").iterdir():
        os.utime(path, (1e9, 1e9))


def test_a_content_that_somebody_is_adding_is_swept_by_nobody(store: Store) -> None:
    age(store)
    for version in ("3", "4", "5"):
        store.remove("m", version, BY, prune=False)
    with store.blobs.drafted(store.blobs.there()):
        assert store.prune() == 0
    assert store.prune() == 6
    whole(store)


def test_an_old_content_that_is_added_again_is_young_before_anybody_sweeps(
    store: Store, tmp_path: Path
) -> None:
    age(store)
    store.remove("m", "5", BY, prune=False)
    swept = []

    def sweep_meanwhile() -> None:
        # As by somebody who had read what is referred to before this one began.
        swept.append(Store(store.objects).prune())

    release = store.release("m", "4")[1]
    model = tmp_path / "model.onnx"
    model.write_bytes(b"4")
    sources = Sources(draft_of(model))
    again = sources.release(release.contents, release.about, EARLY)
    store.add("m", again, sources.files, BY, unchanged=sweep_meanwhile)
    assert swept == [1]
    whole(store)


def test_a_draft_of_who_died_is_forgotten_after_a_day(store: Store) -> None:
    age(store)
    store.remove("m", "5", BY, prune=False)
    store.objects.put("drafts/dead.json", b'{"format": 1, "digests": []}', "")
    later = (Path(store.address) / "drafts/dead.json").stat().st_mtime
    Store(store.objects, clock=lambda: later + DRAFT_S - 1).prune()
    assert store.objects.look("drafts/dead.json") is not None
    Store(store.objects, clock=lambda: later + DRAFT_S + 1).prune()
    assert store.objects.look("drafts/dead.json") is None


def test_a_lease_that_ended_counts_for_a_day(store: Store) -> None:
    written = store.objects.list("leases/")[0].modified
    Store(store.objects, clock=lambda: written + RECENT_S - 1).prune()
    assert len(store.leases.all()) == 1
    Store(store.objects, clock=lambda: written + RECENT_S + 1).prune()
    assert store.leases.all() == []
    assert KEPT_S < RECENT_S
