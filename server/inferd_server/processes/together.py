"""The models of several processes as those of one server: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from inferd_server.models.entries import UNLOADED, State
from inferd_server.models.version import Description
from inferd_server.processes.children import WORKER_LOST
from inferd_server.processes.messages import ModelRecord, ModelRecords

NOT_EVERYWHERE = "not in every replica process"
READY, LOADING, UNAVAILABLE = State.READY.value, State.LOADING.value, State.UNAVAILABLE.value
Version = tuple[str, int]
"""Name and version of a model."""


@dataclass(slots=True)
class Held:
    """What is known of one process that holds the models."""

    counts: bool
    """It takes calls, or is asked by those who do."""
    missed: set[str]
    """Models that were changed elsewhere since it began, while it was loading."""
    joined: bool = False
    """It has loaded what there is, and takes part in every change."""
    models: ModelRecords | None = None
    """None until it told of them."""
    failed: frozenset[str] | None = None
    """Models that it could not load; None until it tried all."""


@dataclass(frozen=True, slots=True)
class Together:
    """What processes that hold the same models have in common."""

    models: ModelRecords
    partial: Mapping[Version, str] = field(default_factory=dict)
    """Versions that serve in some of them and not in others, and why not."""


def served(models: ModelRecords | None) -> dict[Version, str]:
    """Return the versions that serve, and what there is to tell them apart by."""
    records = () if models is None else models.records
    return {
        (each.name, each.version): made_of(each.description)
        for each in records
        if each.state == State.READY.value
    }


def names(models: ModelRecords | None) -> set[str]:
    """Return the models of which a version serves."""
    return {name for name, _ in served(models)}


def differing(ours: ModelRecords | None, theirs: ModelRecords | None) -> list[str]:
    """Return the models of which one process has other versions than another, sorted."""
    return sorted({name for name, _ in dict(served(ours).items() ^ served(theirs).items())})


def made_of(about: Description | None) -> str:
    """Return what tells two versions of the same name and number apart."""
    return "" if about is None else repr((about.config, about.signature))


def together(told: Sequence[ModelRecords]) -> Together:
    """Return what processes have in common.

    Args:
        told: by each of them, one at least.
    """
    if len(told) == 1:
        return Together(told[0])
    each = [{(r.name, r.version): r for r in models.records} for models in told]
    records, partial = [], {}
    for version in sorted(set().union(*each)):
        found = [records_of.get(version) for records_of in each]
        record, why = common(version, found)
        records.append(record)
        if why:
            partial[version] = why
    wanted = frozenset().union(*(models.wanted for models in told))
    settled = all(models.settled for models in told)
    # Each process follows the same labels; for a moment one of them may be ahead.
    labels = told[0].labels
    return Together(ModelRecords(tuple(records), settled, wanted, labels), partial)


def common(version: Version, found: Sequence[ModelRecord | None]) -> tuple[ModelRecord, str]:
    """Return what is to be said of a version, and why it serves in some processes alone, or "".

    Args:
        version: its name and number.
        found: what each process says of it; None: nothing.
    """
    known = [record for record in found if record is not None]
    ready = State.READY.value
    others = [record for record in known if record.state != ready]
    if len(known) == len(found) and not others:
        return known[0], ""
    missing = ModelRecord(*version, State.UNAVAILABLE.value, NOT_EVERYWHERE, None)
    told = others[0] if others else missing
    serves = any(record.state == ready for record in known)
    return told, (told.reason or NOT_EVERYWHERE) if serves else ""


@dataclass(frozen=True, slots=True)
class Workers:
    """What is known of all workers, each of which has some of the models."""

    expected: Collection[int]
    """Those that live or are to come, by index."""
    told: Mapping[int, ModelRecords]
    """By those that live, and have said something."""
    gone: Mapping[int, ModelRecords]
    """Of those that have not tried everything yet, or are gone: what they had before."""
    holds: Callable[[int, str], bool]
    """True for a worker that is to have a model of this name."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Models that no worker may have, and why not."""


def united(workers: Workers) -> Together:
    """Return the models of a server whose workers each have some of them."""
    found: dict[Version, list[tuple[int, ModelRecord]]] = {}
    for index, models in sorted(workers.told.items()):
        for record in models.records:
            if workers.holds(index, record.name):
                found.setdefault((record.name, record.version), []).append((index, record))
    records = {version: of_workers(each) for version, each in found.items()}
    for models in workers.gone.values():
        for record in models.records:
            records.setdefault((record.name, record.version), record)
    known = {name for name, _ in records}
    for name, why in workers.refused.items():
        if name not in known:
            records[name, 0] = ModelRecord(name, 0, UNAVAILABLE, why, None)
    each = (*workers.told.values(), *workers.gone.values())
    wanted = frozenset(workers.refused).union(*(models.wanted for models in each))
    told = [workers.told.get(index) for index in workers.expected]
    settled = all(models is not None and models.settled for models in told)
    labels = {name: at for models in reversed(each) for name, at in models.labels.items()}
    found_records = tuple(records[v] for v in sorted(records))
    return Together(ModelRecords(found_records, settled, wanted, labels))


def of_workers(found: Sequence[tuple[int, ModelRecord]]) -> ModelRecord:
    """Return what is to be said of a version: it serves if it does in one worker.

    Args:
        found: what workers say of it, by their index, in its order; one at least.
    """
    ready = [(index, record) for index, record in found if record.state == READY]
    loading = [(index, record) for index, record in found if record.state == LOADING]
    index, told = (ready or loading or found)[0]
    if told.description is None:
        return told
    # Where a load is under way, one may have other inputs than the next.
    alike = [
        (other, record.description)
        for other, record in ready
        if record is told or made_of(record.description) == made_of(told.description)
    ]
    numbers = {other: about.number for other, about in alike if about is not None}
    return replace(told, workers=numbers or {index: told.description.number})


def lost(models: ModelRecords | None, before: ModelRecords | None = None) -> ModelRecords:
    """Return what is to be said of the models of a worker that is gone.

    Args:
        models: that it told of; None: it told nothing.
        before: those of the worker before, if this one had not tried everything.
    """
    earlier = {} if before is None else {(r.name, r.version): r for r in before.records}
    told = () if models is None else models.records
    records = {(r.name, r.version): gone(r, earlier.get((r.name, r.version))) for r in told}
    wanted = frozenset().union(*(each.wanted for each in (models, before) if each is not None))
    labels = next((each.labels for each in (models, before) if each and each.labels), {})
    kept = tuple({**earlier, **records}.values())
    return ModelRecords(kept, settled=False, wanted=wanted, labels=labels)


def gone(record: ModelRecord, before: ModelRecord | None) -> ModelRecord:
    """Return what is to be said of a version whose worker is gone."""
    if record.reason == UNLOADED:
        return record
    awaited = before is not None and before.returning and record.state == LOADING
    about = replace(record, state=UNAVAILABLE, reason=WORKER_LOST, description=None)
    return replace(about, workers={}, returning=record.state == READY or awaited)


def without(models: ModelRecords, name: str) -> ModelRecords:
    """Return models but for one that has its place elsewhere now, or is wanted no more."""
    records = tuple(record for record in models.records if record.name != name)
    return replace(models, records=records, wanted=models.wanted - {name})


def unloaded(models: ModelRecords) -> frozenset[str]:
    """Return the models that callers had unloaded, all versions of them."""
    others = {each.name for each in models.records if each.reason != UNLOADED}
    return frozenset(each.name for each in models.records) - others
