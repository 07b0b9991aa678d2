"""What plans are tried on, and how long that takes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from inferd_engines.engine import Array, Signature, Tensor
from inferd_engines.tensorrt.judge import (
    RUNS,
    WARM_UP,
    Latency,
    entry_of,
    latencies_in,
    measure,
)
from inferd_engines.tensorrt.profiles import Range, profiles_for
from inferd_engines.tensorrt.trial import drawn

from tests.fakes.clock import FakeClock
from tests.fakes.engine import DOUBLING, FakeEngine, double

MIXED = Signature(
    (
        Tensor("f", np.dtype(np.float32), (None, 3)),
        Tensor("i", np.dtype(np.int64), (None, None)),
        Tensor("b", np.dtype(np.bool_), (None,)),
    ),
    (),
)


def test_inputs_are_drawn_alike_from_one_seed_at_the_sizes_that_plans_are_made_for() -> None:
    profiles = profiles_for(MIXED, (1, 4), {"i": Range((8,), (16,), (64,))}, batched=True)
    first, again = (drawn(MIXED, profiles, np.random.default_rng(7)) for _ in range(2))
    assert [{n: a.shape for n, a in run.items()} for run in first] == [
        {"f": (1, 3), "i": (1, 16), "b": (1,)},
        {"f": (4, 3), "i": (4, 16), "b": (4,)},
    ]
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert {name: array.dtype for name, array in one.items()} == {
            tensor.name: tensor.dtype for tensor in MIXED.inputs
        }


def test_a_plan_without_free_dimensions_is_tried_on_one_batch() -> None:
    fixed = Signature((Tensor("f", np.dtype(np.float32), (3, 4)),), ())
    (batch,) = drawn(fixed, profiles_for(fixed, (), {}, batched=False), np.random.default_rng(0))
    assert batch["f"].shape == (3, 4)


def slower_each_time(clock: FakeClock, engine: FakeEngine) -> FakeEngine:
    """Return an engine whose runs take a millisecond more each time, and none before that."""

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        run = len(engine.batches)
        clock.advance(max(0, run - WARM_UP) / 1000)
        return double(inputs)

    engine._compute = compute
    return engine


def test_each_bucket_has_the_best_and_the_median_of_its_runs_after_a_warm_up() -> None:
    clock = FakeClock()
    engine = slower_each_time(clock, FakeEngine(buckets=(4,)))
    batches = drawn(
        DOUBLING, profiles_for(DOUBLING, (4,), {}, batched=True), np.random.default_rng(0)
    )
    (found,) = measure(engine, batches, clock)
    assert found.rows == 4
    assert found.best == pytest.approx(0.001)
    assert found.median == pytest.approx((RUNS + 1) / 2 / 1000)
    assert {batch.rows for batch in engine.batches} == {4}


def test_a_plan_without_a_batch_has_one_row() -> None:
    batch = {"INPUT0": np.zeros((3, 4), np.float32)}
    (found,) = measure(FakeEngine(), [batch], FakeClock())
    assert found == Latency(1, 0.0, 0.0)


def test_reports_keep_latencies_and_older_ones_have_none() -> None:
    latencies = (Latency(1, 0.001, 0.002), Latency(8, 0.003, 0.004))
    assert latencies_in(entry_of(latencies)) == latencies
    for other in ({}, {"latency": [{"rows": 1}]}, {"latency": None}, {"latency": ["x"]}):
        assert latencies_in(other) == ()
