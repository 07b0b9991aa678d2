"""The expressions of rules: numbers made of metrics, here and as Prometheus' language says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol, TypeAlias

from prometheus_client.metrics_core import Metric

from inferd_server.threads import Pauses

Labels: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, sorted."""
Values: TypeAlias = Mapping[Labels, float]
VERSION = ("model", "version")
RELEASE = ("namespace", "job")
"""Labels that Prometheus adds, by which releases with models of one name are told apart."""


class Reading(NamedTuple):
    """Samples of one moment, by name of the metric."""

    at: float
    """Monotonic seconds."""
    samples: Mapping[str, Values]


class Expression(Protocol):
    """A number for each set of labels."""

    @property
    def names(self) -> frozenset[str]:
        """The samples that it is made of."""

    @property
    def promql(self) -> str:
        """The same for Prometheus."""

    def values(self, history: Sequence[Reading]) -> Values:
        """Return the numbers of now.

        Args:
            history: readings, oldest first; the last is that of now.
        """


@dataclass(frozen=True, slots=True)
class Latest:
    """The samples of a gauge; those whose label matches, if one is named."""

    name: str
    label: str = ""
    pattern: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The samples that it is made of."""
        return frozenset({self.name})

    @property
    def promql(self) -> str:
        """The same for Prometheus."""
        return f"{self.name}{selector(self.label, self.pattern)}"

    def values(self, history: Sequence[Reading]) -> Values:
        """Return the numbers of now."""
        found = history[-1].samples.get(self.name, {})
        return {key: v for key, v in found.items() if matches(key, self.label, self.pattern)}


@dataclass(frozen=True, slots=True)
class Increase:
    """By how much a counter grew, added up over all labels but some."""

    name: str
    by: tuple[str, ...]
    seconds: int
    label: str = ""
    pattern: str = ""

    @property
    def names(self) -> frozenset[str]:
        """The samples that it is made of."""
        return frozenset({self.name})

    @property
    def promql(self) -> str:
        """The same for Prometheus."""
        chosen = f"{self.name}{selector(self.label, self.pattern)}[{self.seconds}s]"
        return f"sum by ({', '.join((*RELEASE, *self.by))}) (increase({chosen}))"

    def values(self, history: Sequence[Reading]) -> Values:
        """Return the numbers of now."""
        begin = history[-1].at - self.seconds
        steps = [each.samples.get(self.name, {}) for each in history if each.at >= begin]
        found: dict[Labels, float] = {}
        for before, after in pairwise(steps):
            for key, value in after.items():
                if matches(key, self.label, self.pattern):
                    kept = only(key, self.by)
                    found[kept] = found.get(kept, 0.0) + grown(before.get(key, 0.0), value)
        return found


@dataclass(frozen=True, slots=True)
class Quotient:
    """One number as a share of another with the same labels; none where that is 0."""

    part: Expression
    whole: Expression

    @property
    def names(self) -> frozenset[str]:
        """The samples that it is made of."""
        return self.part.names | self.whole.names

    @property
    def promql(self) -> str:
        """The same for Prometheus."""
        return f"{self.part.promql} / {self.whole.promql}"

    def values(self, history: Sequence[Reading]) -> Values:
        """Return the numbers of now."""
        part = self.part.values(history)
        return {
            key: part[key] / w for key, w in self.whole.values(history).items() if w and key in part
        }


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile of a histogram of seconds, of what it counted lately."""

    quantile: float
    name: str
    by: tuple[str, ...]
    seconds: int

    @property
    def _buckets(self) -> Increase:
        return Increase(f"{self.name}_bucket", (*self.by, "le"), self.seconds)

    @property
    def names(self) -> frozenset[str]:
        """The samples that it is made of."""
        return self._buckets.names

    @property
    def promql(self) -> str:
        """The same for Prometheus."""
        return f"histogram_quantile({self.quantile}, {self._buckets.promql})"

    def values(self, history: Sequence[Reading]) -> Values:
        """Return the numbers of now."""
        buckets: dict[Labels, list[tuple[float, float]]] = {}
        for key, count in self._buckets.values(history).items():
            bound = float(dict(key)["le"])
            buckets.setdefault(only(key, self.by), []).append((bound, count))
        found = {key: quantile_of(sorted(each), self.quantile) for key, each in buckets.items()}
        return {key: value for key, value in found.items() if value is not None}


def quantile_of(buckets: Sequence[tuple[float, float]], quantile: float) -> float | None:
    """Return a quantile as Prometheus does: within a bucket on a straight line; None of nothing.

    Args:
        buckets: upper bounds, the last infinite, and how many are at most that.
        quantile: from 0 to 1.
    """
    total = buckets[-1][1]
    if not total:
        return None
    rank, lower, below = quantile * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return lower


def grown(before: float, after: float) -> float:
    """Return by how much a counter grew, which begins anew with its process."""
    return after - before if after >= before else after


def only(labels: Labels, names: Iterable[str]) -> Labels:
    """Return some of the labels."""
    kept = set(names)
    return tuple(pair for pair in labels if pair[0] in kept)


def matches(labels: Labels, name: str, pattern: str) -> bool:
    """True if a label matches a pattern as a whole, or none is named."""
    return not name or re.fullmatch(pattern, dict(labels).get(name, "")) is not None


def selector(label: str, pattern: str) -> str:
    """Return how Prometheus selects by a label."""
    return f'{{{label}=~"{pattern}"}}' if label else ""


def read(
    collect: Callable[[frozenset[str]], Iterable[Metric]], names: frozenset[str], at: float
) -> Reading:
    """Return the samples of some names."""
    found, pause = dict[str, dict[Labels, float]](), Pauses()
    for metric in collect(names):
        for sample in metric.samples:
            pause()
            if sample.name in names:
                key = tuple(sorted(sample.labels.items()))
                found.setdefault(sample.name, {})[key] = float(sample.value)
    return Reading(at, found)
