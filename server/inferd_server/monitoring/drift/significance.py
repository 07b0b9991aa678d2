"""Tests of whether two samples are from one distribution, from their counts in the same bins.

Everything is a few lines of numpy, so that a server needs no statistics package; the tests
compare with scipy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[Any]
"""How many values fell into each bin."""
LEAST_EXPECTED = 5.0
"""Values that a cell of the chi-square test must be expected to have. Source: W. G. Cochran, Some
methods for strengthening the common chi-square tests, Biometrics 10, 1954."""


def ks_distance(first: Counts, second: Counts) -> float:
    """Return the largest distance of the two cumulative distributions, between 0 and 1.

    At the edges of bins alone, so that it is never larger than that of the values themselves.
    """
    one, other = (np.cumsum(counts) / max(1, counts.sum()) for counts in (first, second))
    return float(np.abs(one - other).max(initial=0.0))


def ks_p_value(distance: float, first: float, second: float) -> float:
    """Return how probable such a distance is, or a larger one, without any difference.

    Args:
        distance: of the cumulative distributions.
        first: how many values the one sample has.
        second: and the other.

    Source: Press et al., Numerical Recipes, 14.3 (M. A. Stephens' approximation).
    """
    if not first or not second:
        return 1.0
    root = math.sqrt(first * second / (first + second))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return 1.0
    terms = ((-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 21))
    return min(1.0, max(0.0, 2 * math.fsum(terms)))


def chi_square_p_value(first: Counts, second: Counts) -> float:
    """Return how probable it is that two samples fall into cells as differently as that.

    Args:
        first: counts of cells.
        second: likewise; of cells that `merged` has made large enough.
    """
    total = first.sum() + second.sum()
    if len(first) < 2 or not first.sum() or not second.sum():
        return 1.0
    both = first + second
    statistic = 0.0
    for counts in (first, second):
        expected = both * (counts.sum() / total)
        statistic += float(((counts - expected) ** 2 / expected).sum())
    return chi_square_tail(statistic, len(first) - 1)


def chi_square_tail(statistic: float, freedom: int) -> float:
    """Return the probability of a chi-square at least that large.

    Args:
        statistic: the value.
        freedom: degrees of freedom, from 1.

    Source: Abramowitz and Stegun, 26.4.4 and 26.4.5.
    """
    half = statistic / 2
    odd = freedom % 2
    found = math.erfc(math.sqrt(half)) if odd else 0.0
    if not half:
        return 1.0
    # Terms exp(-half) half^k / gamma(k + 1), as logarithms: each alone may be too large.
    for step in range(freedom // 2):
        power = step + 0.5 if odd else float(step)
        found += math.exp(power * math.log(half) - half - math.lgamma(power + 1))
    return min(1.0, found)


def psi(first: Counts, second: Counts) -> float:
    """Return the population stability index of two samples: 0 for equal shares of all cells.

    Half a value is added to each cell, so that an empty one counts and not without bound.
    """
    one, other = ((counts + 0.5) / (counts.sum() + 0.5 * len(counts)) for counts in (first, second))
    return float(((other - one) * np.log(other / one)).sum())


def merged(first: Counts, second: Counts, ordered: bool, most: int) -> tuple[Counts, Counts]:
    """Return both samples in fewer cells, each large enough for the chi-square test.

    Args:
        first: the reference, which decides.
        second: in the same bins.
        ordered: neighbours are joined; else the small ones, all into one.
        most: cells of about equal size, where bins are ordered.
    """
    smaller = min(first.sum(), second.sum()) / max(1, first.sum() + second.sum())
    expected = (first + second) * smaller
    if not ordered:
        large = expected >= LEAST_EXPECTED
        groups = np.where(large, np.cumsum(large) - 1, large.sum())
        return _joined(first, second, groups)
    return _joined(first, second, _neighbours(first, expected, most))


def _neighbours(first: Counts, expected: Counts, most: int) -> Counts:
    """Return the cell of each of some ordered bins, so that all cells are large enough."""
    cells: list[int] = []
    cell, mass, seen = 0, 0.0, 0.0
    shares = first / max(1, first.sum())
    for count, share in zip(expected.tolist(), shares.tolist(), strict=True):
        cells.append(cell)
        mass, seen = mass + share, seen + count
        if mass >= 1 / most - 1e-9 and seen >= LEAST_EXPECTED:
            cell, mass, seen = cell + 1, 0.0, 0.0
    if seen < LEAST_EXPECTED:
        # The rest is too small for a cell of its own.
        cells = [min(one, max(0, cell - 1)) for one in cells]
    return np.array(cells)


def _joined(first: Counts, second: Counts, groups: npt.NDArray[Any]) -> tuple[Counts, Counts]:
    one, other = (np.bincount(groups, counts) for counts in (first, second))
    occupied = one + other > 0
    return one[occupied], other[occupied]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number: below a level at most that often by chance.

    Holds for tests that depend on each other, too. Source: S. Holm, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
