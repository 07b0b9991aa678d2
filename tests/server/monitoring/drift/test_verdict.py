"""Shifts of traffic are found within 1,000 requests, and traffic without any keeps quiet."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_server.monitoring.drift.reference import (
    Hints,
    Reference,
    RowBatch,
    make_reference,
    measured,
)
from inferd_server.monitoring.drift.verdict import KS_FLOOR, PSI_FLOOR, FeatureVerdict, judge

from .samples import answered, digits, table

LEVEL = 0.01


def drawn(rng: np.random.Generator, images: Array, rows: int) -> Array:
    return images[rng.integers(0, len(images), rows)]


def digits_reference(rng: np.random.Generator) -> Reference:
    return make_reference([answered(drawn(rng, digits()[0], 1000))], Hints(), "digits")


def alarms(reference: Reference, batch: RowBatch) -> set[str]:
    found = judge(reference, reference.count(batch), LEVEL)
    return {one.feature for one in found if one.alarm}


def rates(reference: Reference, batch: RowBatch, rng: np.random.Generator) -> float:
    """Return the share of 1,000 windows of 500 rows, drawn from a batch, that have an alarm."""
    values = measured(reference.measures, batch)
    rows, hits = len(next(iter(values.values()))), 0
    for _ in range(1000):
        chosen = rng.integers(0, rows, 500)
        counts = reference.bins({name: found[chosen] for name, found in values.items()})
        hits += any(one.alarm for one in judge(reference, counts, LEVEL))
    return hits / 1000


def test_of_1000_windows_of_digits_without_drift_at_most_the_level_has_an_alarm() -> None:
    rng = np.random.default_rng(11)
    assert rates(digits_reference(rng), answered(digits()[0]), rng) <= LEVEL


def test_of_1000_windows_of_a_table_without_drift_at_most_the_level_has_an_alarm() -> None:
    rng = np.random.default_rng(12)
    reference = make_reference([table(rng, 1000)], Hints(), "a table")
    assert rates(reference, table(rng, 200_000), rng) <= LEVEL


def turned(images: Array, degrees: float) -> Array:
    """Return images [n, 8, 8] turned about their middle, between pixels by interpolation."""
    from scipy.ndimage import rotate

    return rotate(images, degrees, axes=(1, 2), reshape=False, order=1)


@pytest.mark.parametrize(
    ("shift", "feature"),
    [
        (lambda x, _: np.minimum(x * 1.2, 16), "image.brightness"),
        (lambda x, _: turned(x, 15), "image.slant"),
        (lambda x, _: turned(x, -15), "image.slant"),
        (lambda x, rng: np.clip(x + rng.normal(0, 1.5, x.shape), 0, 16), "image.contrast"),
        (lambda x, _: 16 - x, "probabilities.confidence"),
        (lambda x, _: np.where(np.arange(8) > 5, np.nan, x), "image.missing"),
    ],
    ids=["brightness", "rotation", "rotation the other way", "noise", "negative", "nan"],
)
def test_a_shift_of_digits_is_found_within_1000_requests(
    shift: Callable[[Array, np.random.Generator], Array], feature: str
) -> None:
    rng = np.random.default_rng(13)
    reference = digits_reference(rng)
    shifted = shift(drawn(rng, digits()[0], 500), rng)
    assert feature in alarms(reference, answered(shifted))


@pytest.mark.parametrize("missing", range(10))
def test_a_class_that_is_missing_is_found_within_1000_requests(missing: int) -> None:
    rng = np.random.default_rng(missing)
    reference = digits_reference(rng)
    images, labels = digits()
    found = alarms(reference, answered(drawn(rng, images[labels != missing], 1000)))
    assert "probabilities.class" in found


def verdict(reference: Reference, batch: RowBatch, name: str) -> FeatureVerdict:
    found = judge(reference, reference.count(batch), LEVEL)
    return next(one for one in found if one.feature == name)


def test_a_small_shift_of_very_many_rows_is_significant_and_no_alarm() -> None:
    rng = np.random.default_rng(14)
    reference = make_reference([table(rng, 100_000)], Hints(), "a table")
    found = verdict(reference, table(rng, 100_000, 0.1), "x[0]")
    assert found.p < 1e-10
    assert found.ks < KS_FLOOR
    assert found.psi < PSI_FLOOR
    assert not found.alarm


def test_a_large_shift_of_too_few_rows_is_no_alarm_either() -> None:
    rng = np.random.default_rng(15)
    reference = make_reference([table(rng, 1000)], Hints(), "a table")
    found = verdict(reference, table(rng, 6, 0.6), "x[0]")
    assert found.ks > KS_FLOOR
    assert not found.alarm


def test_a_wider_spread_is_found_though_the_middle_stays() -> None:
    rng = np.random.default_rng(16)
    reference = make_reference([table(rng, 1000)], Hints(), "a table")
    wide = RowBatch({"x": rng.normal(0, 2.2, (500, 2)).astype(np.float32)}, {})
    assert verdict(reference, wide, "x[1]").alarm


def test_a_constant_feature_that_changes_is_found_and_one_that_stays_is_not() -> None:
    ones = RowBatch({"x": np.ones((200, 2), np.float32)}, {})
    reference = make_reference([ones], Hints(), "ones")
    assert alarms(reference, RowBatch({"x": np.ones((200, 2), np.float32)}, {})) == set()
    changed = np.stack([np.ones(200), np.full(200, 1.5)], axis=1).astype(np.float32)
    assert alarms(reference, RowBatch({"x": changed}, {})) == {"x[1]"}


def test_a_window_without_any_row_of_a_feature_says_nothing_of_it() -> None:
    rng = np.random.default_rng(17)
    reference = make_reference([table(rng, 1000)], Hints(), "a table")
    found = judge(reference, reference.count(RowBatch({}, {})), LEVEL)
    assert {(one.ks, one.psi, one.p, one.alarm) for one in found} == {(0.0, 0.0, 1.0, False)}
