"""The verdict on a window: which features drifted, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from inferd_server.monitoring.drift.reference import Feature, Reference
from inferd_server.monitoring.drift.significance import (
    chi_square_p_value,
    holm,
    ks_distance,
    ks_p_value,
    merged,
    psi,
)

KS_FLOOR = 0.1
"""Least distance of cumulative distributions that counts as drift, however many rows say so."""
PSI_FLOOR = 0.2
"""Likewise of the population stability index."""
CELLS = 10
"""Of the population stability index of a number."""
Counts = Sequence[Sequence[int]]
"""Rows in each bin of each feature of a reference."""


@dataclass(frozen=True, slots=True)
class FeatureVerdict:
    """How one feature of a window differs from the reference."""

    feature: str
    ks: float
    """Distance of the cumulative distributions; 0 for classes, which have no order."""
    psi: float
    """Population stability index."""
    p: float
    """Adjusted for all tests of the window: how probable such a window is without drift."""
    alarm: bool
    """Improbable by a test whose effect is above its floor."""


@dataclass(frozen=True, slots=True)
class WindowVerdict:
    """How a window differs from the reference."""

    rows: int
    began: float
    """Seconds since the epoch."""
    ended: float
    features: tuple[FeatureVerdict, ...]

    @property
    def alarm(self) -> bool:
        """True if any feature drifted."""
        return any(one.alarm for one in self.features)


@dataclass(frozen=True, slots=True)
class _Tested:
    """One test of one feature."""

    p: float
    large: bool


def judge(reference: Reference, counts: Counts, level: float) -> tuple[FeatureVerdict, ...]:
    """Compare a window with the reference.

    Of a window without drift at most the share `level` has any alarm: the p-values of all tests
    of all features are adjusted together. Each window is judged once.

    Args:
        reference: of the version.
        counts: of the window, by the bins of the reference.
        level: below which p-values count.
    """
    effects = [
        _effects(feature, window)
        for feature, window in zip(reference.features, counts, strict=True)
    ]
    tests = [test for _, _, of in effects for test in of]
    adjusted = iter(holm([test.p for test in tests]))
    found = []
    for feature, (distance, index, of) in zip(reference.features, effects, strict=True):
        p_values = [next(adjusted) for _ in of]
        alarm = any(p < level and test.large for p, test in zip(p_values, of, strict=True))
        found.append(
            FeatureVerdict(feature.name, distance, index, min(p_values, default=1.0), alarm)
        )
    return tuple(found)


def _effects(feature: Feature, window: Sequence[int]) -> tuple[float, float, list[_Tested]]:
    """Return distance and stability index of a feature, and its tests."""
    before, now = np.array(feature.counts, np.int64), np.array(window, np.int64)
    if not before.sum() or not now.sum():
        return 0.0, 0.0, []
    cells = merged(before, now, feature.ordered, CELLS)
    index = psi(*cells) if len(cells[0]) > 1 else 0.0
    tests = [_Tested(chi_square_p_value(*cells), index >= PSI_FLOOR)]
    if not feature.ordered:
        return 0.0, index, tests
    distance = ks_distance(before, now)
    p = ks_p_value(distance, float(before.sum()), float(now.sum()))
    return distance, index, [*tests, _Tested(p, distance >= KS_FLOOR)]
