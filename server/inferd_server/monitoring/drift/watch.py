"""The watch: looks at samples beside the requests' way, and counts them by their reference."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.drift.reference import (
    Hints,
    Reference,
    RowBatch,
    Unfit,
    aligned,
    chosen,
    joined,
    make_reference,
    rows_of,
)
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.windows import DriftCounts, Key
from inferd_server.monitoring.samples import Sample

log = logging.getLogger(__name__)
TOGETHER = 32
"""Rows that are measured together: one by one they cost many times as much."""
HELD_BYTES = 4 * 1024**2
"""Of rows that wait to be measured, of a version."""
LEARNING_BYTES = 64 * 1024**2
"""Of rows that a reference is learned from."""
MOST_OF_SAMPLE = 256
"""Rows of one request that are looked at."""


@dataclass(frozen=True, slots=True)
class Watched:
    """A version that is watched."""

    key: str
    """Of its reference."""
    hints: Hints
    learn_rows: int
    """Rows that a reference is learned from where there is none; 0: none is."""


@dataclass(slots=True)
class _Counting:
    """What is known of a version's rows in this process."""

    watched: Watched
    reference: Reference | None
    held: list[RowBatch] = field(default_factory=list)
    held_rows: int = 0
    held_bytes: int = 0
    rows: int = 0
    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """By the bins of each feature."""
    passed_over: int = 0
    """Samples that were not looked at, because the share of a core was used up."""
    unfit: bool = False
    """There is no reference, and nothing can be learned."""


class DriftWatch:
    """Counts the rows of samples. Samples come on one thread; any thread may ask."""

    def __init__(
        self,
        watched: Callable[[str, str], Watched | None],
        references: References,
        share: float,
        clock: Callable[[], float],
    ) -> None:
        """Begin with nothing counted.

        Args:
            watched: returns how a version by name and number is watched; None: it is not.
            references: of all versions.
            share: of a core that this may use.
            clock: monotonic seconds.
        """
        self._watched = watched
        self._references = references
        self._share = share
        self._clock = clock
        self._log = BoundedLog(log, clock)
        self._versions: dict[tuple[str, int], _Counting] = {}
        self._lock = threading.Lock()
        # Before this moment samples are passed over: the share of a core is used up.
        self._rests_until = -np.inf

    def __call__(self, sample: Sample) -> None:
        """Look at a sample, or pass it over."""
        began, name = self._clock(), (sample.model, int(sample.version))
        with self._lock:
            known = self._versions.get(name)
            if known is not None and began < self._rests_until:
                known.passed_over += 1
                return
        watched = self._watched(sample.model, sample.version)
        if watched is None:
            return
        with self._lock:
            version = self._counting(name, watched)
            batch = chosen(aligned(sample.inputs, sample.outputs), MOST_OF_SAMPLE)
            if not version.unfit:
                self._take(sample.model, version, batch)
        ended = self._clock()
        self._rests_until = ended + rest(ended - began, self._share)

    def retain(self, versions: Collection[tuple[str, int]]) -> None:
        """Forget what was counted for versions that are not among these."""
        with self._lock:
            for name in self._versions.keys() - set(versions):
                del self._versions[name]

    def counts(self) -> Mapping[Key, DriftCounts]:
        """Return what was counted since the start, by version and reference."""
        with self._lock:
            for (model, _), version in self._versions.items():
                if version.reference is not None:
                    self._count(model, version)
            return {
                (*name, version.watched.key): DriftCounts(
                    version.rows, tuple(tuple(one.tolist()) for one in version.counts)
                )
                for name, version in self._versions.items()
                if version.counts
            }

    def counters(self) -> Mapping[tuple[str, str, int], float]:
        """Return what /metrics tells of this process, by name, model and version."""
        with self._lock:
            found: dict[tuple[str, str, int], float] = {}
            for name, version in self._versions.items():
                found["inferd_drift_rows_total", *name] = version.rows
                found["inferd_drift_passed_over_total", *name] = version.passed_over
            return found

    def _counting(self, name: tuple[str, int], watched: Watched) -> _Counting:
        found = self._versions.get(name)
        if found is None or found.watched != watched:
            found = _Counting(watched, None)
            self._versions[name] = found
            if (reference := self._references.find(watched.key)) is not None:
                begin(found, reference)
            elif not watched.learn_rows:
                found.unfit = True
                about = {"model": name[0], "why": "the reference that was made is not there"}
                log.warning("drift is not watched", extra=about)
        return found

    def _take(self, model: str, version: _Counting, batch: RowBatch) -> None:
        rows = rows_of(batch)
        if not rows:
            return
        version.held.append(batch)
        version.held_rows += rows
        version.held_bytes += bytes_of(batch)
        if version.reference is None:
            self._learn(model, version)
        elif version.held_rows >= TOGETHER or version.held_bytes >= HELD_BYTES:
            self._count(model, version)

    def _count(self, model: str, version: _Counting) -> None:
        """Measure the rows that wait."""
        reference, batches = version.reference, clear(version)
        assert reference is not None
        try:
            for batch in joined(batches):
                counted = reference.count(batch)
                version.counts = [a + b for a, b in zip(version.counts, counted, strict=True)]
                version.rows += rows_of(batch)
        except Exception as error:
            self._failed(model, error)

    def _learn(self, model: str, version: _Counting) -> None:
        """Make a reference once there are rows enough, or take one that is there by now."""
        watched = version.watched
        full = version.held_rows >= watched.learn_rows or version.held_bytes >= LEARNING_BYTES
        if not full:
            return
        reference = self._references.find(watched.key)
        if reference is None:
            source = f"the first {version.held_rows} rows"
            try:
                made = make_reference(version.held, watched.hints, source)
            except Unfit as error:
                version.unfit = True
                log.warning("drift is not watched", extra={"model": model, "why": str(error)})
            except Exception as error:
                version.unfit = True
                self._failed(model, error)
            else:
                reference = self._references.agree(watched.key, made)
                log.info("a reference was learned", extra={"model": model, "rows": made.rows})
        clear(version)
        if reference is not None:
            begin(version, reference)

    def _failed(self, model: str, error: Exception) -> None:
        about = {"model": model, "error": str(error)}
        self._log(model, logging.ERROR, "rows could not be measured", about, error)


def begin(version: _Counting, reference: Reference) -> None:
    """Count by a reference from now on."""
    version.reference = reference
    version.counts = [np.zeros(len(one.counts), np.int64) for one in reference.features]


def clear(version: _Counting) -> list[RowBatch]:
    """Return the rows that wait, and forget them."""
    held = version.held
    version.held, version.held_rows, version.held_bytes = [], 0, 0
    return held


def bytes_of(batch: RowBatch) -> int:
    """Return what a batch holds of memory, its texts among it."""
    arrays = (*batch.inputs.values(), *batch.outputs.values())
    texts = (sum(map(len, array.flat)) for array in arrays if array.dtype == object)
    return sum(array.nbytes for array in arrays) + sum(texts)


def rest(spent: float, share: float) -> float:
    """Return the seconds after work during which there is none, so that it keeps to its share.

    Args:
        spent: seconds of work.
        share: of a core, above 0.
    """
    return spent * max(0.0, 1 / share - 1)
