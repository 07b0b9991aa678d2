"""What is measured of rows is what its name says, finite where it can be, and bounded."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from inferd_server.monitoring.drift.measures import (
    MOST_ELEMENTS,
    PROJECTIONS,
    SIDE,
    Kind,
    Measure,
    directions,
    thin,
    thin_image,
)


def measure(kind: Kind, **given: object) -> Measure:
    return Measure("x", output=False, kind=kind, **given)  # type: ignore[arg-type]


def test_numbers_are_summarised_by_row() -> None:
    rows = np.array([[0, 2, 4, 10], [1, 1, 1, 1]], np.uint8)
    found = measure(Kind.NUMBERS, low=0.0, high=10.0).values(rows)
    assert found["x.mean"].tolist() == [4, 1]
    assert found["x.spread"].tolist() == pytest.approx([rows[0].std(), 0])
    assert found["x.range"].tolist() == [10, 0]
    assert found["x.saturation"].tolist() == [0.5, 0]
    assert found["x.missing"].tolist() == [0, 0]


def test_what_is_not_finite_is_counted_and_left_out_of_the_summary() -> None:
    rows = np.array([[1, 3, np.nan, np.inf], [np.nan] * 4, [1, 2, 3, 4]], np.float32)
    found = measure(Kind.NUMBERS, low=1.0, high=4.0).values(rows)
    assert found["x.missing"].tolist() == [0.5, 1, 0]
    assert found["x.mean"][0] == 2
    assert found["x.spread"][0] == 1
    assert found["x.range"][0] == 2
    assert np.isnan(found["x.mean"][1])
    assert found["x.mean"][2] == 2.5


@pytest.mark.parametrize("kind", [Kind.NUMBERS, Kind.COLUMNS, Kind.PROJECTION, Kind.TEXT])
def test_empty_tensors_are_measured_without_an_error(kind: Kind) -> None:
    dtype = object if kind is Kind.TEXT else np.float32
    assert measure(kind).values(np.empty((0, 3), dtype)) == {}
    for values in measure(kind).values(np.empty((2, 0), dtype)).values():
        assert values.shape == (2,)


def test_an_image_of_one_colour_has_neither_centre_nor_edges() -> None:
    found = measure(Kind.IMAGES).values(np.full((1, 9, 9), 7.0, np.float32))
    assert found["x.brightness"].tolist() == [7]
    assert found["x.contrast"].tolist() == [0]
    assert np.isnan(found["x.centre_x"][0])
    assert np.isnan(found["x.edge_slant"][0])


def bar(angle: float) -> np.ndarray:
    """Return [33, 33] with a bright bar through the middle, at an angle from upright."""
    y, x = np.mgrid[-1:1:33j, -1:1:33j]
    across = x * np.cos(angle) - y * np.sin(angle)
    along = x * np.sin(angle) + y * np.cos(angle)
    return np.exp(-((across / 0.12) ** 2) - (along / 0.6) ** 4)


def test_moments_and_edges_tell_how_an_image_is_turned() -> None:
    turned = np.stack([bar(0), bar(np.pi / 12), bar(-np.pi / 12), bar(np.pi / 2)])
    found = measure(Kind.IMAGES).values(turned)
    for name in ("x.slant", "x.edge_slant"):
        upright, right, left, flat = found[name]
        assert abs(upright) < 0.02
        assert abs(flat) < 0.02
        assert right == pytest.approx(-left, abs=0.08)
        assert abs(right) > 0.3
    assert found["x.aspect"][0] == pytest.approx(-found["x.aspect"][3], abs=1e-6)
    assert found["x.centre_x"] == pytest.approx(np.zeros(4), abs=1e-9)


def test_moving_an_image_moves_its_centre_and_noise_is_detail() -> None:
    image = bar(0.2)
    moved, noisy = np.roll(image, 5, axis=1), image + np.random.default_rng(0).normal(size=(33, 33))
    found = measure(Kind.IMAGES).values(np.stack([image, moved, noisy]))
    assert found["x.centre_x"][1] - found["x.centre_x"][0] == pytest.approx(10 / 32, abs=0.02)
    assert found["x.slant"][1] == pytest.approx(found["x.slant"][0], abs=0.02)
    assert found["x.detail"][2] > found["x.detail"][0] + 0.2


def test_channels_of_both_layouts_are_the_same_image() -> None:
    first = np.random.default_rng(1).random((2, 3, 12, 16))
    last = np.moveaxis(first, 1, 3)
    one = measure(Kind.IMAGES, channels=0).values(first)
    other = measure(Kind.IMAGES, channels=2).values(last)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values == pytest.approx(other[name])


def test_probabilities_have_a_confidence_an_entropy_and_a_class() -> None:
    rows = np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.1, 0.2, 0.7]], np.float32)
    found = Measure("p", output=True, kind=Kind.PROBABILITIES, labels=("0", "2")).values(rows)
    assert found["p.confidence"].tolist() == pytest.approx([1, 1 / 3, 0.7])
    assert found["p.entropy"][:2].tolist() == pytest.approx([0, 1], abs=1e-6)
    # The place of the class among the labels.
    assert found["p.class"].tolist() == [0, 0, 1]
    logits = Measure("p", output=True, kind=Kind.LOGITS, labels=("0", "2"))
    with np.errstate(divide="ignore"):
        again = logits.values(np.log(rows) + 5)
    assert again["p.confidence"].tolist() == pytest.approx([1, 1 / 3, 0.7])


def test_an_answer_of_nothing_but_nan_has_no_class() -> None:
    found = Measure("p", output=True, kind=Kind.PROBABILITIES, labels=("0",)).values(
        np.full((1, 3), np.nan)
    )
    assert all(np.isnan(values).all() for values in found.values())


@pytest.mark.parametrize(
    "array", [np.array([7, 3, 9]), np.array([[b"7"], [b"3"], [b"\xff"]], object)]
)
def test_labels_are_told_apart_by_number_or_text_and_others_are_one(array: np.ndarray) -> None:
    found = Measure("y", output=True, kind=Kind.LABELS, labels=("3", "7")).values(array)
    assert found["y.class"].tolist() == [1, 0, 2]


def test_text_has_a_length_and_a_few_columns_are_features_each() -> None:
    text = np.array([[b"ab", b""], [b"c", b"def"]], object)
    assert measure(Kind.TEXT).values(text)["x.length"].tolist() == [2, 4]
    table = np.array([[1.5, np.nan], [2, 3]], ml_dtypes.bfloat16)
    found = measure(Kind.COLUMNS).values(table)
    assert found["x[0]"].tolist() == [1.5, 2]
    assert np.isnan(found["x[1]"][0])


def test_an_embedding_is_seen_from_directions_of_length_one_that_differ() -> None:
    seen = directions(384)
    assert seen.shape == (384, PROJECTIONS)
    products = seen.T @ seen
    assert np.diag(products) == pytest.approx(np.ones(PROJECTIONS), abs=0.15)
    assert np.abs(products - np.diag(np.diag(products))).max() < 0.15
    one = measure(Kind.PROJECTION).values(np.ones((2, 384), np.float32))
    assert sorted(one) == [f"x[{index}]" for index in range(PROJECTIONS)]


def test_rows_that_are_measured_in_parts_are_measured_as_together() -> None:
    shares = np.random.default_rng(2).dirichlet(np.ones(400_000), 5)
    whole = Measure("p", output=True, kind=Kind.PROBABILITIES, labels=("0",))
    found = whole.values(shares)
    assert {len(values) for values in found.values()} == {5}
    for row in range(5):
        alone = whole.values(shares[row : row + 1])
        assert {name: values[row] for name, values in found.items()} == {
            name: pytest.approx(values[0]) for name, values in alone.items()
        }


def test_of_large_tensors_a_bounded_part_is_looked_at_and_always_the_same() -> None:
    large = np.broadcast_to(np.float32(1), (2, 1000, 1000, 50))
    assert thin(large).shape[1] <= MOST_ELEMENTS
    few = thin(np.arange(2 * 10_000).reshape(2, 10_000))
    assert np.array_equal(thin(few), few)
    images = thin_image(np.broadcast_to(np.float32(1), (2, 3, 4000, 3000)), 0)
    assert images.shape[1] == 3
    assert max(images.shape[2:]) <= SIDE
    assert thin_image(images, 0).shape == images.shape
