"""Numbers made of metrics mean what Prometheus means by them."""

from __future__ import annotations

import pytest
from inferd_server.monitoring.alerts.expressions import (
    Increase,
    Labels,
    Latest,
    Quantile,
    Quotient,
    Reading,
    Values,
    quantile_of,
)

A: Labels = (("code", "OK"), ("model", "a"))
A_BAD: Labels = (("code", "INTERNAL"), ("model", "a"))
B: Labels = (("code", "OK"), ("model", "b"))
OF_A: Labels = (("model", "a"),)
OF_B: Labels = (("model", "b"),)


def readings(*steps: Values) -> list[Reading]:
    """Return one reading of `n` every ten seconds."""
    return [Reading(10.0 * index, {"n": values}) for index, values in enumerate(steps)]


def test_a_gauge_is_what_it_was_last() -> None:
    assert Latest("n").values(readings({A: 1.0}, {A: 2.0})) == {A: 2.0}
    assert Latest("n", "code", "INTER.*").values(readings({A: 1.0, A_BAD: 5.0})) == {A_BAD: 5.0}
    assert Latest("other").values(readings({A: 1.0})) == {}


def test_an_increase_is_added_up_over_the_labels_that_do_not_matter() -> None:
    found = Increase("n", ("model",), 60).values(
        readings({A: 1, A_BAD: 1, B: 7}, {A: 4, A_BAD: 2, B: 7})
    )
    assert found == {OF_A: 4, OF_B: 0}


def test_an_increase_is_of_the_last_seconds_only() -> None:
    steps = readings({A: 0}, {A: 100}, {A: 101}, {A: 103})
    assert Increase("n", ("model",), 20).values(steps) == {OF_A: 3}


def test_a_counter_that_begins_anew_or_appears_grew_by_what_it_has() -> None:
    assert Increase("n", ("model",), 60).values(readings({A: 100}, {A: 5}, {A: 6})) == {OF_A: 6}
    assert Increase("n", ("model",), 60).values(readings({}, {A: 5})) == {OF_A: 5}
    assert Increase("n", ("model",), 60).values(readings({A: 5})) == {}


def test_a_share_of_nothing_is_none() -> None:
    bad, all_of = (Increase("n", ("model",), 60, *about) for about in (("code", "INTERNAL"), ()))
    steps = readings({A: 0, A_BAD: 0, B: 0}, {A: 3, A_BAD: 1, B: 0})
    assert Quotient(bad, all_of).values(steps) == {OF_A: 0.25}


@pytest.mark.parametrize(
    ("counts", "quantile", "value"),
    [
        ((0, 10, 10), 0.5, 1.5),
        ((10, 10, 10), 0.5, 0.5),
        ((0, 0, 10), 0.5, 2.0),
        ((1, 99, 100), 0.99, 2.0),
        ((0, 0, 0), 0.5, None),
    ],
)
def test_a_quantile_lies_within_its_bucket(
    counts: tuple[float, ...], quantile: float, value: float | None
) -> None:
    bounds = (1.0, 2.0, float("inf"))
    assert quantile_of(list(zip(bounds, counts, strict=True)), quantile) == value


def test_a_quantile_is_of_what_was_counted_lately() -> None:
    def at(seconds: float, low: float, high: float) -> Reading:
        counts = (("0.1", low), ("1.0", low + high), ("+Inf", low + high))
        samples = {(("le", le), ("model", "a")): count for le, count in counts}
        return Reading(seconds, {"s_bucket": samples})

    history = [at(0, 1000, 0), at(10, 1000, 10)]
    (value,) = Quantile(0.5, "s", ("model",), 60).values(history).values()
    assert value == pytest.approx(0.55)


def test_promql_says_the_same() -> None:
    bad = Increase("n_total", ("model",), 300, "code", "A|B")
    assert bad.promql == 'sum by (namespace, job, model) (increase(n_total{code=~"A|B"}[300s]))'
    assert Latest("n").promql == "n"
    assert Quotient(Latest("a"), Latest("b")).promql == "a / b"
    assert Quantile(0.99, "s", ("model",), 300).promql == (
        "histogram_quantile(0.99, sum by (namespace, job, model, le) (increase(s_bucket[300s])))"
    )
