"""The processes that hold the models, workers or replicas: what each has, and changes of all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import wait
from contextlib import AbstractContextManager, contextmanager, nullcontext

from inferd_server.errors import InferdError, ModelNotReady
from inferd_server.models.entries import State
from inferd_server.models.overrides import Override
from inferd_server.models.under_way import UnderWay
from inferd_server.processes import messages
from inferd_server.processes.children import WORKER_LOST
from inferd_server.processes.placement import Placements
from inferd_server.processes.spawn import WORKER, Child
from inferd_server.processes.together import (
    Held,
    Together,
    Version,
    Workers,
    differing,
    lost,
    names,
    served,
    together,
    united,
    without,
)
from inferd_server.processes.vote import Vote

log = logging.getLogger(__name__)
NOBODY = "no process has loaded its models yet; try again"


class Holders:
    """What the processes that hold the models have, each and together, and changes of it.

    Replicas all have the same models; of several workers each has those that were placed there.
    Any thread may call any method; `load`, `unload`, `move` and `join` block.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object],
        placements: Placements | None = None,
        busy: Callable[[], Mapping[int, float]] = dict,
    ) -> None:
        """Begin without any.

        Args:
            lock: may be taken again by whoever has it.
            placements: of the models on workers; None: there are replicas.
            busy: returns the part of the time for which each worker's engines run.
        """
        self._lock = lock
        self._placements = placements
        self._busy = busy
        # Of workers that are gone, or have not tried everything yet.
        self._gone: dict[int, messages.ModelRecords] = {}
        # Workers that tried everything once, and those whose models move to others.
        self._once: set[int] = set()
        self._moving: set[int] = set()
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
        """True once every process that counts has tried to load everything.

        Of several workers one is enough, once each has done so: it serves on while another starts.
        """
        with self._lock:
            tried = [held.failed is not None for held in self._held.values() if held.counts]
            if self._placements is None:
                return bool(tried) and all(tried)
            return any(tried) and self._once >= {*self._placements.workers, *self._moving}

    @property
    def working(self) -> frozenset[int]:
        """Indexes of the processes that tried to load everything, and live."""
        with self._lock:
            return frozenset(c.index for c, held in self._held.items() if held.failed is not None)

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
            # A worker takes part from the start: nobody else has its models.
            joined = child.role == WORKER
            self._held[child] = Held(counts, set(self._changing), joined=joined)

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
            if child.role == WORKER:
                self._once.add(child.index)
                self._gone.pop(child.index, None)
                self._look()
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
            held = self._held.pop(child, None)
            if child.role == WORKER:
                told = None if held is None else held.models
                self._gone[child.index] = lost(told, self._gone.get(child.index))
            if not self._look():
                self._together = Together(lost(self.models))

    def load(self, message: messages.Load) -> None:
        """Load a model in every process that is to have it, or in none.

        Raises:
            InferdError: that it led to in one of them, or it has no place.
        """
        name = message.name
        with self._change(name, lambda: self._place(name, message.override)) as children:
            self._load(children, message)
            self._remember(name, message.override)

    def unload(self, message: messages.Unload) -> None:
        """Unload a model in every process that has it.

        Raises:
            InferdError: none of them could.
        """
        if self._refused(message.name):
            return
        with self._change(message.name) as children:
            futures = [child.channel.ask(message) for child in children]
            wait(futures)
            errors = [future.exception() for future in futures]
            if all(errors):
                raise next(error for error in errors if error is not None)
            self._remember(message.name, None)
            if self._placements is not None:
                with self._lock:
                    self._placements.forget(message.name)

    def _refused(self, name: str) -> bool:
        """Forget a model that has no place, and that no process has; False for any other."""
        with self._lock:
            if self._placements is None or name not in self._placements.refused:
                return False
            self._placements.forget(name)
            self._look()
            return True

    def move(self, worker: int, why: str) -> None:
        """Load the models of a worker that is given up in others, as far as they may go there."""
        assert self._placements is not None
        with self._lock:
            self._moving.add(worker)
            names = self._placements.give_up(worker, why)
            self._look()
        for name in names:
            try:
                with self._change(name) as children:
                    self._load(children, messages.Load(name, self.overrides.get(name)))
            except InferdError as error:
                log.error("a model could not be moved", extra={"model": name, "why": str(error)})
                with self._lock:
                    self._placements.refuse(name, str(error))
        with self._lock:
            self._gone.pop(worker, None)
            self._moving.discard(worker)
            self._look()

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
    def _change(
        self, name: str, place: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Iterator[list[Child]]:
        """Change a model while nobody else does; gives the processes that take part.

        Args:
            name: of the model.
            place: gives it its place, before it is known who takes part.
        """
        with self._under_way.alone(name), place():
            with self._lock:
                children = [child for child in self.joined() if self._holds(child, name)]
                self._changing.add(name)
                for held in self._held.values():
                    if not held.joined:
                        held.missed.add(name)
            try:
                if not children:
                    replicas = self._placements is None and self._held
                    raise ModelNotReady(NOBODY if replicas else WORKER_LOST)
                yield children
            finally:
                with self._lock:
                    self._changing.discard(name)

    def _holds(self, child: Child, name: str) -> bool:
        return self._placements is None or self._placements.holds(child.index, name)

    @contextmanager
    def _place(self, name: str, override: Override | None) -> Iterator[None]:
        """Place a model that is to be loaded; it goes back if that fails, and else leaves."""
        placements = self._placements
        if placements is None or placements.alone:
            yield
            return
        need, busy = placements.need(name, override), self._busy()
        with self._lock:
            before = placements.decide(name, need, busy)
        try:
            yield
        except BaseException:
            with self._lock:
                placements.restore(name, before)
            raise
        with self._lock:
            left = placements.leave(name)
            gone = [child for child in self.joined() if child.index in left]
            for worker, models in list(self._gone.items()):
                self._gone[worker] = without(models, name)
        wait([child.channel.ask(messages.Unload(name)) for child in gone])

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
            held = self._held.get(child)
            others = [one for one in self._held.values() if one is not held and one.joined]
            if not others or held is None:
                return []
            if self._placements is None:
                return differing(held.models, others[0].models)
            tried = [one.models for one in others if one.failed is not None]
            return sorted({
                name
                for models in tried
                for name in set(differing(held.models, models)) & names(models) & names(held.models)
            })  # fmt: skip

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
        if self._placements is not None:
            self._together = united(self._workers(self._placements))
            return True
        told = [held.models for held in self._held.values() if held.counts and held.models]
        if told:
            self._together = together(told)
        return bool(told)

    def _workers(self, placements: Placements) -> Workers:
        """Return what is known of the workers. With the lock held."""
        told = {
            child.index: held.models
            for child, held in self._held.items()
            if held.models is not None
        }
        refused = placements.refused
        return Workers(placements.workers, told, self._gone, placements.serves, refused)
