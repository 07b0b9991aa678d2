"""The tests of significance agree with scipy's, and keep their level."""

from __future__ import annotations

import numpy as np
import pytest
from inferd_server.monitoring.drift.significance import (
    chi_square_p_value,
    chi_square_tail,
    holm,
    ks_distance,
    ks_p_value,
    merged,
    psi,
)
from scipy import stats


def counts(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("freedom", [1, 2, 3, 9, 40, 63])
@pytest.mark.parametrize("statistic", [0.0, 1e-9, 0.5, 7.0, 60.0, 2000.0])
def test_the_tail_of_chi_square_is_scipys(statistic: float, freedom: int) -> None:
    expected = stats.chi2.sf(statistic, freedom)
    assert chi_square_tail(statistic, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-300)


def test_a_table_of_counts_is_tested_as_scipy_does() -> None:
    first, second = counts(30, 50, 20, 11), counts(25, 80, 5, 14)
    expected = stats.chi2_contingency(np.array([first, second]), correction=False).pvalue
    assert chi_square_p_value(first, second) == pytest.approx(expected)


@pytest.mark.parametrize("distance", [0.01, 0.05, 0.08, 0.15, 0.5])
def test_the_p_value_of_a_distance_is_near_scipys_exact_one(distance: float) -> None:
    exact = stats.kstwo.sf(distance, 500 * 1000 // 1500)
    assert ks_p_value(distance, 500, 1000) == pytest.approx(exact, rel=0.1, abs=1e-12)


def test_the_distance_of_bins_is_that_of_cumulative_shares() -> None:
    assert ks_distance(counts(10, 0, 0), counts(0, 0, 4)) == 1.0
    assert ks_distance(counts(5, 5), counts(100, 100)) == 0.0
    assert ks_distance(counts(5, 5, 0), counts(1, 1, 2)) == pytest.approx(0.5)


def test_without_values_nothing_is_significant() -> None:
    nothing = counts(0, 0)
    assert ks_p_value(ks_distance(nothing, nothing), 0, 0) == 1.0
    assert chi_square_p_value(counts(3, 4), nothing) == 1.0
    assert chi_square_p_value(counts(3), counts(5)) == 1.0


def test_the_stability_index_of_equal_shares_is_zero_and_of_an_empty_cell_finite() -> None:
    assert psi(counts(500, 500), counts(50, 50)) == pytest.approx(0, abs=1e-9)
    assert 1 < psi(counts(500, 500), counts(1000, 0)) < 10


def test_ordered_bins_become_cells_of_about_equal_shares() -> None:
    first, second = np.full(40, 25), np.full(40, 12)
    one, other = merged(first, second, ordered=True, most=10)
    assert one.tolist() == [100] * 10
    assert other.tolist() == [48] * 10


def test_small_cells_are_joined_and_no_row_is_lost() -> None:
    first, second = counts(400, 3, 0, 2, 100, 0), counts(90, 1, 0, 0, 9, 1)
    for ordered in (True, False):
        one, other = merged(first, second, ordered, most=10)
        assert (one.sum(), other.sum()) == (first.sum(), second.sum())
        assert len(one) <= 3


def test_a_new_class_has_a_cell_of_its_own() -> None:
    one, other = merged(counts(500, 500, 0), counts(200, 200, 100), ordered=False, most=10)
    assert (one.tolist(), other.tolist()) == ([500, 500, 0], [200, 200, 100])


def test_p_values_are_adjusted_for_their_number() -> None:
    # By hand: 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.5 * 1).
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([]) == []


def test_samples_of_one_distribution_are_significant_as_often_as_the_level_says() -> None:
    rng = np.random.default_rng(7)
    edges = np.linspace(-2, 2, 39)
    found = np.zeros(2)
    for _ in range(2000):
        first, second = (
            np.bincount(np.searchsorted(edges, rng.normal(size=size)), minlength=40)
            for size in (1000, 500)
        )
        ks = ks_p_value(ks_distance(first, second), 1000, 500)
        chi = chi_square_p_value(*merged(first, second, ordered=True, most=10))
        found += np.array([ks, chi]) < 0.05
    ks_rate, chi_rate = found / 2000
    # Distances at the edges of bins alone make the first one careful.
    assert 0.02 < ks_rate < 0.06
    assert 0.035 < chi_rate < 0.065
