"""A reference finds out what a model's tensors are, and how their rows are distributed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from inferd.tensors import Array
from inferd_server.monitoring.drift.measures import Kind
from inferd_server.monitoring.drift.reference import (
    MOST_FEATURES,
    Feature,
    Hints,
    Reference,
    RowBatch,
    Unfit,
    binned,
    edges_of,
    make_reference,
)

RNG = np.random.default_rng(3)
ROWS = 200


def reference(
    inputs: Mapping[str, Array], outputs: Mapping[str, Array] | None = None, **hints: object
) -> Reference:
    batch = RowBatch(inputs, outputs or {})
    return make_reference([batch], Hints(**hints), "a test")  # type: ignore[arg-type]


def kinds(found: Reference) -> dict[str, list[Kind]]:
    by_name: dict[str, list[Kind]] = {}
    for measure in found.measures:
        by_name.setdefault(measure.tensor, []).append(measure.kind)
    return by_name


def feature(found: Reference, name: str) -> Feature:
    return next(one for one in found.features if one.name == name)


def test_outputs_that_add_up_to_one_are_probabilities_and_logits_once_they_are_said_to_be() -> None:
    logits = RNG.normal(size=(ROWS, 5))
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    inputs = {"x": RNG.normal(size=(ROWS, 40))}
    outputs = {"p": shares, "z": logits}
    assert kinds(reference(inputs, outputs)) == {
        "p": [Kind.PROBABILITIES],
        "z": [Kind.COLUMNS],
        "x": [Kind.NUMBERS],
    }
    assert kinds(reference(inputs, outputs, logits=("z",)))["z"] == [Kind.LOGITS]


@pytest.mark.parametrize(
    ("shape", "formats", "kind"),
    [
        ((8, 8), {}, Kind.IMAGES),
        ((7, 80), {}, Kind.NUMBERS),
        ((3, 32, 32), {}, Kind.IMAGES),
        ((32, 32, 3), {}, Kind.IMAGES),
        ((5, 32, 32), {}, Kind.NUMBERS),
        ((5, 32, 32), {"x": "NCHW"}, Kind.IMAGES),
        ((), {}, Kind.COLUMNS),
        ((16,), {}, Kind.COLUMNS),
        ((17,), {}, Kind.NUMBERS),
        ((2, 2, 2, 9), {}, Kind.NUMBERS),
    ],
)
def test_inputs_are_images_tables_or_numbers_by_their_shape(
    shape: tuple[int, ...], formats: dict[str, str], kind: Kind
) -> None:
    found = reference({"x": RNG.random((ROWS, *shape)).astype(np.float32)}, formats=formats)
    assert kinds(found) == {"x": [kind]}


def test_whole_numbers_and_texts_of_few_values_are_classes_and_generated_text_is_nothing() -> None:
    labels = RNG.integers(0, 3, ROWS)
    texts = np.array([b"cat", b"dog"], object)[RNG.integers(0, 2, ROWS)]
    prose = np.array([f"answer {index}".encode() for index in range(ROWS)], object)
    found = reference({"x": RNG.random(ROWS)}, {"y": labels, "t": texts, "prose": prose})
    assert kinds(found) == {"y": [Kind.LABELS], "t": [Kind.LABELS], "x": [Kind.COLUMNS]}
    y = feature(found, "y.class")
    assert sorted(y.labels) == ["0", "1", "2"]
    assert sum(y.counts[:3]) == ROWS
    # Behind the labels: all other classes, and what is none.
    assert y.counts[3:] == (0, 0)


def test_an_embedding_that_is_named_is_seen_from_directions_besides() -> None:
    found = reference({"x": RNG.random(ROWS)}, {"e": RNG.normal(size=(ROWS, 64))}, embedding="e")
    assert kinds(found)["e"] == [Kind.NUMBERS, Kind.PROJECTION]


def test_features_are_bounded_in_number_and_those_of_outputs_stay() -> None:
    inputs = {f"x{index}": RNG.random((ROWS, 16)) for index in range(10)}
    found = reference(inputs, {"y": RNG.integers(0, 2, ROWS)})
    assert len(found.features) == MOST_FEATURES
    assert found.features[0].name == "y.class"


@pytest.mark.parametrize(
    ("batch", "why"),
    [
        (RowBatch({"x": np.zeros((99, 2))}, {}), "99 rows"),
        (RowBatch({"x": np.zeros((200, 2)), "y": np.zeros(150)}, {}), "0 rows"),
        (RowBatch({"x": np.float32(1)}, {}), "0 rows"),
        (RowBatch({}, {}), "0 rows"),
        (RowBatch({"x": np.zeros(ROWS, np.complex64)}, {}), "nothing"),
    ],
)
def test_data_that_can_be_no_reference_is_refused_with_a_reason(batch: RowBatch, why: str) -> None:
    with pytest.raises(Unfit, match=why):
        make_reference([batch], Hints(), "a test")


def test_bins_of_a_number_hold_about_equally_many_values_and_each_value_once() -> None:
    values = RNG.normal(size=4000)
    counts = binned(edges_of(values), values)
    assert sum(counts) == 4000
    assert max(counts[:-1]) <= 1.3 * min(counts[:-1])
    assert counts[-1] == 0


def test_a_constant_feature_notices_a_change_either_way_and_no_rounding() -> None:
    edges = edges_of(np.full(ROWS, 0.1))
    same = np.array([0.1, np.nextafter(0.1, 1), np.float64(np.float32(0.1))])
    (at,) = np.nonzero(binned(edges, same))
    assert len(at) == 1
    for other in (0.0999, 0.1001, -5.0, np.inf):
        assert np.nonzero(binned(edges, np.array([other])))[0] != at
    assert binned(edges_of(np.zeros(ROWS)), np.zeros(3))[1] == 3


def test_what_is_no_number_has_a_bin_of_its_own_and_infinity_is_at_the_end() -> None:
    edges = edges_of(np.array([1.0, 2.0, np.nan, np.inf] * 50))
    counts = binned(edges, np.array([np.nan, np.inf, -np.inf]))
    assert (counts[0], counts[-2], counts[-1]) == (1, 1, 1)
    assert binned(edges_of(np.full(ROWS, np.nan)), np.array([np.nan, 1.0])) == (1, 1)


def test_rows_that_differ_in_size_have_their_size_as_a_feature() -> None:
    batches = [
        RowBatch({"x": np.ones((60, length), np.int64)}, {})
        for length in (20, 20, 30, 40)
        for _ in "ab"
    ]
    found = make_reference(batches, Hints(), "a test")
    assert found.rows == 480
    sizes = feature(found, "x.size")
    assert sum(sizes.counts) == 480
    longer = found.count(RowBatch({"x": np.ones((5, 90), np.int64)}, {}))
    assert longer[found.features.index(sizes)][len(sizes.edges)] == 5


def test_an_answer_of_another_form_than_the_reference_counts_for_nothing() -> None:
    found = reference({"x": RNG.random((ROWS, 9, 9))}, {"y": RNG.integers(0, 2, ROWS)})
    other = RowBatch({"x": RNG.random((3, 9))}, {"y": np.array([["a"] * 2] * 3, object)})
    assert all(not sum(counts) for counts in found.count(other))
    without = found.count(RowBatch({"x": RNG.random((3, 9, 9))}, {}))
    assert sum(without[0]) == 0
    assert all(sum(counts) == 3 for counts in without[1:])
