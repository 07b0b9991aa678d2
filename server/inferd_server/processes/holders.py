"""The processes that hold the models, a worker or replicas: what each has, and changes of all."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace

from inferd_server.errors import InferdError, ModelNotReady
from inferd_server.models.entries import UNLOADED, State
from inferd_server.models.overrides import Override
from inferd_server.models.under_way import UnderWay
from inferd_server.models.version import Description
from inferd_server.processes import messages
from inferd_server.processes.children import WORKER_LOST
from inferd_server.processes.spawn import WORKER, Child
from inferd_server.processes.vote import Vote

log = logging.getLogger(__name__)
NOT_EVERYWHERE = "not in every replica process"
NOBODY = "no process has loaded its models yet; try again"
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
    models: messages.ModelRecords | None = None
    """None until it told of them."""
    failed: frozenset[str] | None = None
    """Models that it could not load; None until it tried all."""


@dataclass(frozen=True, slots=True)
class Together:
    """What processes that hold the same models have in common."""

    models: messages.ModelRecords
    partial: Mapping[Version, str] = field(default_factory=dict)
    """Versions that serve in some of them and not in others, and why not."""


class Holders:
    """What the processes that hold the models have, each and together, and changes of it.

    Any thread may call any method; `load`, `unload` and `join` block.
    """

    def __init__(self, lock: AbstractContextManager[object]) -> None:
        """Begin without any; `lock` may be taken again by whoever has it."""
        self._lock = lock
        self._held: dict[Child, Held] = {}
        self._together = Together(messages.ModelRecords((), settled=False))
        self._overrides: dict[str, Override] = {}
        self._under_way = UnderWay(1)
        self._changing: set[str] = set()
        self._votes: dict[str, Vote] = {}

    @property
    def models(self) -> messages.ModelRecords:
        """What the server has: a version serves if it does in every process that counts."""
        return self._together.models

    @property
    def partial(self) -> Mapping[Version, str]:
        """Versions that serve in some processes alone, and why not in the others."""
        return self._together.partial

    @property
    def loaded(self) -> bool:
        """True once every process that counts has tried to load everything."""
        with self._lock:
            counting = [held for held in self._held.values() if held.counts]
            return bool(counting) and all(held.failed is not None for held in counting)

    @property
    def overrides(self) -> Mapping[str, Override]:
        """What callers loaded models with: a process that dies takes its own along."""
        with self._lock:
            return dict(self._overrides)

    def counting(self) -> list[Child]:
        """Return the processes that the state of the server depends on."""
        with self._lock:
            return [child for child, held in self._held.items() if held.counts]

    def joined(self) -> list[Child]:
        """Return the processes that have loaded what there is."""
        with self._lock:
            return [child for child, held in self._held.items() if held.joined]

    def begin(self, child: Child, counts: bool) -> None:
        """Take in a new process, which loads everything now."""
        with self._lock:
            # A worker is the only one, and takes part from the start.
            alone = child.role == WORKER
            self._held[child] = Held(counts, set(self._changing), joined=alone)

    def told(self, child: Child, models: messages.ModelRecords) -> None:
        """Take in what a process has."""
        with self._lock:
            if child in self._held:
                self._held[child].models = models
                self._admit(child)

    def tried(self, child: Child, failed: frozenset[str]) -> bool:
        """Note that a process tried to load everything; False if it is gone."""
        with self._lock:
            if child not in self._held:
                return False
            self._held[child].failed = failed
            return True

    def loading(self, child: Child) -> set[str]:
        """Return the models that a process is loading."""
        with self._lock:
            held = self._held.get(child)
            records = held.models.records if held is not None and held.models else ()
            return {each.name for each in records if each.state == State.LOADING.value}

    def lost(self, child: Child) -> None:
        """Note that a process is gone."""
        with self._lock:
            self._held.pop(child, None)
            if not self._look():
                self._together = Together(lost(self.models))

    def load(self, message: messages.Load) -> None:
        """Load a model in every process, or in none.

        Raises:
            InferdError: that it led to in one of them.
        """
        with self._change(message.name) as children:
            self._load(children, message)
            self._remember(message.name, message.override)

    def unload(self, message: messages.Unload) -> None:
        """Unload a model in every process.

        Raises:
            InferdError: none of them could.
        """
        with self._change(message.name) as children:
            futures = [child.channel.ask(message) for child in children]
            wait(futures)
            errors = [future.exception() for future in futures]
            if all(errors):
                raise next(error for error in errors if error is not None)
            self._remember(message.name, None)

    def agree(self, child: Child, message: messages.Opened | messages.Taking) -> None:
        """Let a process that loads a model wait until all others are as far.

        Raises:
            InferdError: another one could not open it.
        """
        vote = self._votes.get(message.name)
        if vote is None:
            return
        if isinstance(message, messages.Opened):
            vote.opened(child)
        else:
            vote.taking(child)

    def count_all(self) -> None:
        """Let every process count, whatever it has: nobody else is left."""
        with self._lock:
            for held in self._held.values():
                held.counts = True
            self._look()

    def join(self, child: Child) -> None:
        """Bring a process up to what the others have; it takes part in changes from then on.

        It counts from then on if it has all that the others have, and else once it has.
        """
        while (name := self._next_missed(child)) is not None:
            with self._under_way.alone(name):
                self._repeat(child, name)
        for name in self._differing(child):
            try:
                self._even_out(child, name)
            except InferdError as error:
                where = {"child": child.name, "model": name, "error": str(error)}
                log.error("a replica has other models than the rest", extra=where)
        with self._lock:
            if child in self._held:
                self._admit(child)

    @contextmanager
    def _change(self, name: str) -> Iterator[list[Child]]:
        """Change a model while nobody else does; gives the processes that take part."""
        with self._under_way.alone(name):
            with self._lock:
                children = self.joined()
                self._changing.add(name)
                for held in self._held.values():
                    if not held.joined:
                        held.missed.add(name)
            try:
                if not children:
                    raise ModelNotReady(NOBODY if self._held else WORKER_LOST)
                yield children
            finally:
                with self._lock:
                    self._changing.discard(name)

    def _load(self, children: Sequence[Child], message: messages.Load) -> None:
        vote = Vote(children)
        with self._lock:
            self._votes[message.name] = vote
        try:
            vote.load(message)
        finally:
            with self._lock:
                del self._votes[message.name]

    def _remember(self, name: str, override: Override | None) -> None:
        with self._lock:
            self._overrides.pop(name, None)
            if override is not None:
                self._overrides[name] = override

    def _next_missed(self, child: Child) -> str | None:
        """Return a change that a process missed; None, and it has joined, if there is none."""
        with self._lock:
            held = self._held.get(child)
            if held is None:
                return None
            if held.missed:
                return held.missed.pop()
            held.joined = True
            return None

    def _repeat(self, child: Child, name: str) -> None:
        """Let one process have of a model what the others have."""
        wanted = name in self.models.wanted
        override = self.overrides.get(name)
        change = messages.Load(name, override) if wanted else messages.Unload(name)
        try:
            child.channel.ask(change).result()
        except InferdError as error:
            where = {"child": child.name, "model": name, "error": str(error)}
            log.info("a replica could not repeat a change", extra=where)

    def _even_out(self, child: Child, name: str) -> None:
        """Let all have a model as a new process found it: as a worker does that starts anew."""
        with self._change(name) as children:
            if name in self._differing(child):
                self._load(children, messages.Load(name, self.overrides.get(name)))

    def _differing(self, child: Child) -> list[str]:
        """Return the models that a process has otherwise than another one that has joined."""
        with self._lock:
            others = [held for one, held in self._held.items() if one is not child and held.joined]
            held = self._held.get(child)
            if not others or held is None:
                return []
            ours, theirs = served(held.models), served(others[0].models)
        return sorted({name for name, _ in dict(ours.items() ^ theirs.items())})

    def _admit(self, child: Child) -> None:
        """Let a process count that has all that the others have. With the lock held."""
        held = self._held[child]
        if held.joined and not held.counts:
            others = [one for one in self._held.values() if one.counts]
            theirs = served(others[0].models) if others else {}
            held.counts = theirs.items() <= served(held.models).items()
        self._look()

    def _look(self) -> bool:
        """See what all have in common; False if none tells of anything. With the lock held."""
        told = [held.models for held in self._held.values() if held.counts and held.models]
        if told:
            self._together = together(told)
        return bool(told)


def served(models: messages.ModelRecords | None) -> dict[Version, str]:
    """Return the versions that serve, and what there is to tell them apart by."""
    records = () if models is None else models.records
    return {
        (each.name, each.version): made_of(each.description)
        for each in records
        if each.state == State.READY.value
    }


def made_of(about: Description | None) -> str:
    """Return what tells two versions of the same name and number apart."""
    return "" if about is None else repr((about.config, about.signature))


def together(told: Sequence[messages.ModelRecords]) -> Together:
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
    return Together(messages.ModelRecords(tuple(records), settled, wanted, labels), partial)


def common(
    version: Version, found: Sequence[messages.ModelRecord | None]
) -> tuple[messages.ModelRecord, str]:
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
    missing = messages.ModelRecord(*version, State.UNAVAILABLE.value, NOT_EVERYWHERE, None)
    told = others[0] if others else missing
    serves = any(record.state == ready for record in known)
    return told, (told.reason or NOT_EVERYWHERE) if serves else ""


def lost(models: messages.ModelRecords) -> messages.ModelRecords:
    """Return what is to be said of the models once no process has them any more."""
    records = (
        each
        if each.reason == UNLOADED
        else replace(each, state=State.UNAVAILABLE.value, reason=WORKER_LOST, description=None)
        for each in models.records
    )
    return messages.ModelRecords(tuple(records), settled=False, wanted=models.wanted)


def unloaded(models: messages.ModelRecords) -> frozenset[str]:
    """Return the models that callers had unloaded, all versions of them."""
    others = {each.name for each in models.records if each.reason != UNLOADED}
    return frozenset(each.name for each in models.records) - others
