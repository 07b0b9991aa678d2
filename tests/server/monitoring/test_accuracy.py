"""The sliding window of labels, and what it says of a model."""

from __future__ import annotations

import math

import numpy as np
import pytest
from inferd_server.monitoring.accuracy import (
    SLICES,
    AccuracySnapshot,
    AccuracyWindow,
    Labelled,
    LabelWindow,
    add_accuracy,
    report,
    wilson,
)
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.snapshot import merge, without_gauges

HOUR = 3600.0
WINDOW = LabelWindow(HOUR, 1000)
NAN = math.nan


def row(predicted: str, actual: str, sure: float = NAN) -> Labelled:
    return Labelled(predicted, actual, predicted == actual, sure)


def right(count: int) -> list[Labelled]:
    return [row("a", "a")] * count


def wrong(count: int) -> list[Labelled]:
    return [row("a", "b")] * count


def accuracy(found: AccuracySnapshot, now: float) -> tuple[float, int] | None:
    told = report(found, now)
    return None if told is None else (told.accuracy.value, told.accuracy.support)


def test_accuracy_is_the_share_of_rows_that_were_right() -> None:
    window = AccuracyWindow(WINDOW)
    window.add([*right(3), *wrong(1)], 10.0)
    assert accuracy(window.snapshot(), 10.0) == (0.75, 4)
    assert (window.snapshot().right, window.snapshot().wrong) == (3, 1)


def test_precision_and_recall_are_those_of_each_class() -> None:
    window = AccuracyWindow(WINDOW)
    window.add([row("a", "a"), row("a", "b"), row("b", "b"), row("b", "b"), row("c", "a")], 0.0)
    told = report(window.snapshot(), 0.0)
    assert told is not None
    assert {name: share.value for name, share in told.precision.items()} == {
        "a": 1 / 2,
        "b": 1.0,
        "c": 0.0,
    }
    assert {name: (s.value, s.support) for name, s in told.recall.items()} == {
        "a": (1 / 2, 2),
        "b": (2 / 3, 3),
    }


def test_classes_that_share_a_name_are_right_only_where_they_are_the_same() -> None:
    window = AccuracyWindow(WINDOW)
    window.add([Labelled("other", "other", False, NAN)], 0.0)
    assert accuracy(window.snapshot(), 0.0) == (0.0, 1)


def test_confidence_is_the_mean_of_the_rows_that_have_one() -> None:
    window = AccuracyWindow(WINDOW)
    window.add([row("a", "a", 0.5), row("a", "b", 1.0), row("a", "a")], 0.0)
    told = report(window.snapshot(), 0.0)
    assert told is not None
    assert told.confidence == 0.75


def test_old_labels_slide_out_by_time() -> None:
    window = AccuracyWindow(WINDOW)
    window.add(wrong(10), 0.0)
    window.add(right(10), HOUR - 1)
    assert accuracy(window.snapshot(), HOUR - 1) == (0.5, 20)
    assert accuracy(window.snapshot(), HOUR + 1) == (1.0, 10)
    assert accuracy(window.snapshot(), 2 * HOUR) is None


def test_old_labels_slide_out_by_count_a_part_of_the_window_at_a_time() -> None:
    window = AccuracyWindow(WINDOW)
    window.add(wrong(1000), 0.0)
    window.add(right(1000), 1.0)
    share, support = accuracy(window.snapshot(), 1.0) or (0.0, 0)
    assert share == 1.0
    assert WINDOW.labels * (1 - 1 / SLICES) <= support <= WINDOW.labels


def test_what_a_window_holds_is_bounded_however_many_labels_come() -> None:
    window = AccuracyWindow(WINDOW)
    for moment in range(200):
        window.add(right(97), moment * 60.0)
        assert len(window.snapshot().slices) <= 2 * SLICES + 1


def test_windows_of_processes_are_one_window() -> None:
    first, second = AccuracyWindow(WINDOW), AccuracyWindow(WINDOW)
    first.add(wrong(500), 0.0)
    second.add(right(500), 5.0)
    first.add(right(500), 10.0)
    both = add_accuracy(first.snapshot(), second.snapshot())
    assert accuracy(both, 10.0) == (1.0, 1000)
    assert both == add_accuracy(second.snapshot(), first.snapshot())
    assert (both.right, both.wrong) == (1000, 500)


def test_labels_outlive_the_process_that_took_them() -> None:
    metrics = Metrics()
    metrics.accuracy_of("m", 1, WINDOW).add(right(3), 0.0)
    metrics.refused_feedback("LATE")
    kept = without_gauges(metrics.snapshot())
    total = merge([kept, metrics.snapshot()])
    assert accuracy(total.accuracy["m", 1], 0.0) == (1.0, 6)
    assert total.refused_feedback == {"LATE": 2}


def test_the_metrics_tell_a_share_its_interval_and_of_how_many_it_is() -> None:
    metrics = Metrics(wall=lambda: 0.0)
    metrics.accuracy_of("m", 1, WINDOW).add([*right(3), *wrong(1)], 0.0)
    value, about = metrics.registry.get_sample_value, {"model": "m", "version": "1"}
    share = wilson(3, 4)
    assert value("inferd_model_accuracy", about) == 0.75
    assert value("inferd_model_accuracy_lower", about) == share.lower
    assert value("inferd_model_accuracy_upper", about) == share.upper
    assert value("inferd_model_accuracy_support", about) == 4
    assert value("inferd_model_precision", {**about, "class": "a"}) == 0.75
    assert value("inferd_model_recall", {**about, "class": "b"}) == 0.0
    assert value("inferd_feedback_labels_total", {**about, "result": "right"}) == 3
    assert value("inferd_feedback_labels_total", {**about, "result": "wrong"}) == 1


def test_without_labels_the_metrics_tell_no_accuracy() -> None:
    names = {metric.name for metric in Metrics().registry.collect()}
    assert not any(name.startswith(("inferd_model_", "inferd_feedback")) for name in names)


@pytest.mark.parametrize(
    ("right_ones", "labels", "lower", "upper"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_wilsons(right_ones: int, labels: int, lower: float, upper: float) -> None:
    share = wilson(right_ones, labels)
    assert (round(share.lower, 4), round(share.upper, 4)) == (lower, upper)


@pytest.mark.parametrize("truth", [0.8, 0.95])
def test_the_interval_covers_the_truth_in_at_least_93_of_100_simulations(truth: float) -> None:
    generator = np.random.default_rng(20)
    covered = 0
    for _ in range(200):
        # Two replicas, which a balancer sends labels to.
        parts = [AccuracyWindow(LabelWindow(HOUR, 400)) for _ in range(2)]
        for moment, good in enumerate(generator.random(500) < truth):
            parts[generator.integers(2)].add(right(1) if good else wrong(1), float(moment))
        told = report(add_accuracy(*(part.snapshot() for part in parts)), 500.0)
        assert told is not None
        assert told.accuracy.support >= 360
        covered += told.accuracy.lower <= truth <= told.accuracy.upper
    assert covered >= 186
