"""The trial of a model's rows: the same batch shape, the same row, other neighbours.

A batch of the same shape runs the same kernels, so the answer of a row whose model does not mix
rows keeps every bit whatever its neighbours hold: no tolerance is needed, and a leak of 1e-5 is
seen. Only what depends on the place in the batch, or on its size, is compared with a tolerance,
element by element; whole numbers must be equal there, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeAlias

import numpy as np
from inferd.tensors import Array
from inferd_engines.engine import Engine, EngineError
from inferd_engines.onnx_values import ModelFacts

from inferd_server.models.batchable import missing_rows
from inferd_server.models.row_values import (
    InputValues,
    WatchedRow,
    Write,
    candidates,
    own_values,
)
from inferd_server.models.row_verdict import (
    Case,
    Equal,
    Finding,
    RowVerdict,
    alike,
    alike_on_device,
    differing,
    same_bits,
    summary,
)

SIZES = (2, 5, 32)
"""Batches that are tried, besides the largest: one of 5 fills what has room for 4."""
WATCHES_MEMORY = 1 << 20
"""Bytes of a row from which the memory that runs take is looked at."""
CPU = "CPU"
"""Stands in the names of engines whose kernels round alike, whatever the size of a batch."""
MOST_WATCHED = 24
REPEATS = 2
"""How often two answers must come again before a row is said to depend on others."""
LEAST_FEEDS = 6
"""Neighbours that a dear model is tried with, too: others, equal, large ones, NaN, infinity."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a trial may cost."""

    clock: Callable[[], float]
    """Monotonic seconds."""
    resident: Callable[[], int]
    """Returns the bytes of memory that this process holds."""
    peak: Callable[[], int]
    """Returns the most that it ever held."""
    input_bytes: int = 128 << 20
    """Of the inputs of one batch."""
    memory: int = 1 << 30
    """Bytes by which a run may make the process grow."""
    least_s: float = 30.0
    """Seconds for the part without which nothing is told."""
    most_s: float = 3.0
    """Seconds after which only that part is done."""


class Answer(NamedTuple):
    """What a row was answered, and the problem with it."""

    outputs: Mapping[str, Array]
    problem: RowVerdict | None


Ask: TypeAlias = Callable[[Mapping[str, Write]], Answer | None]
"""Runs a batch of these neighbours; None if the model does not take it."""


class NeighbourRun(NamedTuple):
    """Neighbours of a row, and what it was answered beside them."""

    feed: Mapping[str, Write]
    outputs: Mapping[str, Array]


class Stopped(Exception):
    """The time for a trial is over."""


class TooLarge(Exception):
    """A run of a single row takes more memory than a trial may."""


class RowTrial:
    """The trial of one model."""

    def __init__(
        self,
        engine: Engine,
        facts: ModelFacts,
        most: int,
        budget: Budget,
        own: Mapping[str, Array] | None = None,
    ) -> None:
        """Prepare.

        Args:
            engine: opened.
            facts: from the model's file.
            most: rows that a batch may have.
            budget: for all.
            own: rows that the model is known to take, by input.
        """
        self._engine = engine
        self._facts = facts
        self._most = max(2, most)
        self._budget = budget
        self._own = own
        self._values: Sequence[InputValues] = ()
        self._watched: Sequence[Sequence[WatchedRow]] = ()
        self._buffers: Mapping[str, Array] = {}
        self._seen: dict[int, Mapping[str, Array]] = {}
        # When answers count as the same: bit for bit, and where kernels or engines may round.
        self._same: Equal = same_bits
        self._near: Equal = alike if CPU in engine.name else alike_on_device
        self._unsteady = ""
        # Shapes of the outputs for two rows.
        self._pair: Mapping[str, tuple[int, ...]] = {}
        self._failure = "nothing was tried"
        self._until = self._soon = 0.0
        self._left_out = False
        self._fitting = 0
        self.runs = 0
        self.stopped = False
        """True once the time was over before anything could be told."""

    def verdict(self) -> RowVerdict:
        """Try, and say what came of it.

        Raises:
            EngineError: a fatal one.
        """
        start = self._budget.clock()
        self._until = start + self._budget.least_s
        self._soon = start + self._budget.most_s
        try:
            with np.errstate(all="ignore"):
                return self._verdict()
        except Stopped:
            self.stopped = True
            why = f"the trial was not over after {self._budget.least_s:g} s"
            return self._told(Finding.UNTRIED, why)
        except TooLarge as error:
            return self._told(Finding.UNTRIED, f"rows could not be tried together: {error}")
        finally:
            self._buffers = {}

    def smallest(self) -> Mapping[str, Array] | None:
        """Return one row that the model takes; None if none is known."""
        generator = np.random.default_rng(1)
        return {one.name: one.draw(1, generator) for one in self._values} or None

    def _verdict(self) -> RowVerdict:
        if not self._fit():
            why = f"rows could not be tried together: {self._failure}"
            return self._told(Finding.UNTRIED, why)
        problem = self._without_rows()
        if problem is not None:
            return problem
        generator = np.random.default_rng(0)
        self._watched = [list(one.watched(generator)) for one in self._values]
        cases = self._cases()
        tried, skipped = [], []
        for number, case in enumerate(cases):
            if number:
                self._until = self._soon
            try:
                problem = self._case(case)
            except Stopped:
                if not number:
                    raise
                skipped = cases[number:]
                break
            if problem is not None:
                return problem
            tried.append(case)
        if not self._seen:
            return self._told(Finding.UNTRIED, f"rows could not be tried together: {self._failure}")
        if self._unsteady:
            why = (
                f"{self._engine.name} answers equal batches with other last bits (output "
                f"{self._unsteady!r}), so that only changes beyond rounding could be seen, and "
                f"none was in {self.runs} runs"
            )
            return self._told(Finding.RANDOM, why)
        text = summary(tried, skipped, self.runs, self._most, fewer_neighbours=self._left_out)
        return self._told(Finding.INDEPENDENT, text)

    def _without_rows(self) -> RowVerdict | None:
        """Look for outputs that have not one row for one row; return what is wrong.

        In a batch of as many rows as a state has layers, nobody could tell.
        """
        alone = self._run(self.smallest() or {}, 1)
        for name, array in (alone or {}).items():
            if array.shape[:1] != (1,):
                pairs = enumerate(zip(array.shape, self._pair[name], strict=False))
                axis = next((place for place, sizes in pairs if sizes == (1, 2)), None)
                why = missing_rows(name, array.shape, 1, axis)
                return self._told(Finding.MIXES, why)
        return None

    def _cases(self) -> list[Case]:
        """Return what to try, that which finds most first."""
        rows = min(MOST_WATCHED, max(map(len, self._watched)))
        largest = min(self._most, max(2, self._fitting))
        sizes = sorted({min(size, largest) for size in (*SIZES, self._most)})
        first, *larger = sizes
        cases = [Case(0, first)]
        cases += [Case(0, size) for size in larger]
        cases += [Case(row, min(3, sizes[-1])) for row in range(1, rows)]
        cases += [Case(1, size) for size in sizes if rows > 1]
        return cases

    def _fit(self) -> bool:
        """Find values that the model takes; False if none are found."""
        if self._own is not None:
            self._values = own_values(self._engine.signature, self._facts, self._own)
            if self._takes(self._values):
                return True
        for values in candidates(self._engine.signature, self._facts):
            if self._takes(values):
                self._values = self._raised(values)
                return True
            self._check_time()
        return False

    def _raised(self, values: Sequence[InputValues]) -> Sequence[InputValues]:
        """Return values with larger whole numbers, for each input that takes them."""
        found = list(values)
        for index, one in enumerate(values):
            larger = [below for below in (200, 10) if below > one.below]
            for below in larger if one.dtype.kind in "iu" or one.whole else ():
                found[index] = replace(one, below=below)
                if self._takes(found):
                    break
                found[index] = one
        return found

    def _takes(self, values: Sequence[InputValues]) -> bool:
        """True if two rows of such values run, within the budget."""
        row = sum(one.row_bytes for one in values)
        self._fitting = self._budget.input_bytes // max(1, row)
        if self._fitting < 2:
            self._failure = f"two rows of inputs take {2 * row} bytes"
            return False
        generator = np.random.default_rng(1)
        watched = row >= WATCHES_MEMORY
        before = self._budget.resident() if watched else 0
        for rows in (1, 2) if watched else (2,):
            peak = self._budget.peak() if watched else 0
            outputs = self._run({one.name: one.draw(rows, generator) for one in values}, rows)
            if outputs is None:
                return False
            self._pair = {name: array.shape for name, array in outputs.items()}
            if watched:
                highest = self._budget.peak()
                # A peak from before says nothing of this run.
                held = max(self._budget.resident(), highest if highest > peak else 0)
                self._check_memory(held - before, rows)
        return True

    def _check_memory(self, grown: int, rows: int) -> None:
        """Bound the rows of a batch by what a run of some took."""
        self._fitting = min(self._fitting, self._budget.memory * rows // max(1, grown))
        if self._fitting < 2:
            what = "one row" if rows == 1 else f"{rows} rows"
            raise TooLarge(f"a run of {what} takes {grown >> 20} MiB of memory")

    def _case(self, case: Case) -> RowVerdict | None:
        """Try one row at the first and the last place; return what is wrong."""
        watched = [rows[min(case.watched, len(rows) - 1)] for rows in self._watched]
        generator = np.random.default_rng(case.batch)
        others = [one.draw(case.batch, generator) for one in self._values]
        self._buffers = {
            one.name: np.empty((case.batch, *one.shape), one.dtype) for one in self._values
        }
        for place in (0, case.batch - 1):
            problem = self._among(case, place, watched, others)
            if problem is not None:
                return problem
        return None

    def _among(
        self, case: Case, place: int, watched: Sequence[WatchedRow], others: Sequence[Array]
    ) -> RowVerdict | None:
        """Try a row at one place among all its neighbours; return what is wrong."""
        ask = partial(self._answer, place=place, watched=watched, batch=case.batch)
        reference: Mapping[str, Array] | None = None
        plain: Mapping[str, Write] = {}
        for number, (name, feed) in enumerate(self._feeds(watched, others)):
            self._check_time()
            if number >= LEAST_FEEDS and self._budget.clock() > self._soon:
                self._left_out = True
                break
            answer = ask(feed)
            if answer is None:
                continue
            if answer.problem is not None:
                return answer.problem
            if reference is None:
                reference, plain = answer.outputs, feed
                continue
            changed = differing(reference, answer.outputs, self._same)
            if changed:
                where = f"beside {name} rows, in a batch of {case.batch}"
                pair = NeighbourRun(plain, reference), NeighbourRun(feed, answer.outputs)
                problem = self._changed(changed, where, ask, pair)
                if problem is not None:
                    return problem
        if reference is not None and all(one.moderate for one in watched):
            return self._compare(case, watched, reference)
        return None

    def _compare(
        self, case: Case, watched: Sequence[WatchedRow], answer: Mapping[str, Array]
    ) -> RowVerdict | None:
        """Compare with the answers of the same row at other places and in other batches."""
        if case.watched not in self._seen:
            alone = self._alone(watched)
            if alone is not None and alone.problem is not None:
                return alone.problem
            self._seen[case.watched] = answer if alone is None else alone.outputs
        changed = differing(self._seen[case.watched], answer, self._near)
        if not changed:
            return None
        why = f"output {changed!r} of a row changed in a batch of {case.batch}"
        return self._told(
            Finding.MIXES, f"rows depend on their place in the batch or on its size: {why}"
        )

    def _changed(
        self, output: str, where: str, ask: Ask, pair: tuple[NeighbourRun, NeighbourRun]
    ) -> RowVerdict | None:
        """Find out why a row was answered in two ways; None: the engine itself is not steady."""
        usual, other = pair

        def repeats(equal: Equal) -> bool:
            return usual.feed is not other.feed and all(
                repeated(ask, one, equal) for _ in range(REPEATS) for one in pair
            )

        unlike = differing(usual.outputs, other.outputs, self._near)
        if repeats(self._same) or (unlike and repeats(self._near)):
            why = f"output {output!r} of a row changed {where}"
            return self._told(Finding.MIXES, f"rows depend on the other rows of their batch: {why}")
        if unlike:
            why = (
                f"equal batches give different answers (output {output!r}), as with dropout or "
                "sampling, so that nothing can be told of the rows"
            )
            return self._told(Finding.RANDOM, why)
        # From now on only what is more than rounding can be seen.
        self._same, self._unsteady = self._near, output
        return None

    def _feeds(
        self, watched: Sequence[WatchedRow], others: Sequence[Array]
    ) -> Iterator[tuple[str, Mapping[str, Write]]]:
        """Yield the neighbours to try by what they are; the first two are equal."""
        sets = {
            one.name: one.companies(other, row.row)
            for one, other, row in zip(self._values, others, watched, strict=True)
        }
        plain = {name: kinds["other"] for name, kinds in sets.items()}
        yield "other", plain
        yield "other", plain
        for kind in dict.fromkeys(kind for kinds in sets.values() for kind in kinds):
            yield kind, {name: kinds.get(kind, kinds["other"]) for name, kinds in sets.items()}
        if len(sets) > 1:
            for name, kinds in sets.items():
                for kind in ("equal", "all 0", "all 1"):
                    if kind in kinds:
                        yield f"{kind} ({name})", {**plain, name: kinds[kind]}

    def _answer(
        self, feed: Mapping[str, Write], place: int, watched: Sequence[WatchedRow], batch: int
    ) -> Answer | None:
        """Run a batch; None if the model does not take it."""
        for one, row in zip(self._values, watched, strict=True):
            buffer = self._buffers[one.name]
            feed[one.name](buffer)
            buffer[place] = row.row
        outputs = self._run(self._buffers, batch)
        return None if outputs is None else self._split(outputs, place, batch)

    def _alone(self, watched: Sequence[WatchedRow]) -> Answer | None:
        feed = {}
        for one, row in zip(self._values, watched, strict=True):
            feed[one.name] = np.empty((1, *one.shape), one.dtype)
            feed[one.name][0] = row.row
        outputs = self._run(feed, 1)
        return None if outputs is None else self._split(outputs, 0, 1)

    def _split(self, outputs: Mapping[str, Array], place: int, batch: int) -> Answer:
        """Take one row out of a batch's outputs, if there is one for each row."""
        for name, array in outputs.items():
            if array.ndim == 0 or array.shape[0] != batch:
                why = missing_rows(name, array.shape, batch)
                return Answer({}, self._told(Finding.MIXES, why))
        # Copies: an engine may hand out memory that its next run writes into.
        return Answer(
            {name: array[place : place + 1].copy() for name, array in outputs.items()}, None
        )

    def _run(self, feed: Mapping[str, Array], rows: int) -> Mapping[str, Array] | None:
        """Run the engine; None if it does not take the inputs."""
        self.runs += 1
        try:
            return self._engine.run(feed, {}, rows)
        except EngineError as error:
            if error.fatal:
                raise
            self._failure = str(error)
            return None

    def _check_time(self) -> None:
        if self._budget.clock() > self._until:
            raise Stopped

    def _told(self, finding: Finding, reason: str) -> RowVerdict:
        return RowVerdict(finding, reason, self.runs, self._fitting)


def repeated(ask: Ask, one: NeighbourRun, equal: Equal) -> bool:
    """True if a row beside the same neighbours is answered as before."""
    again = ask(one.feed)
    return again is not None and not differing(one.outputs, again.outputs, equal)
