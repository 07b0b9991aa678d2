"""What model.yaml says of targets and shares, in a model that was loaded by it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from inferd.tensors import Array
from inferd_server.settings.model import EngineSettings

from tests.fakes.engine import DOUBLING, FakeEngine, double
from tests.server.models.bench import WITHIN, Bench

TARGET = "target_p99_ms: 100\nmax_batch_size: 8\nwarm_up: []\n"


def test_a_target_is_steered_for_and_the_metrics_show_by_what(tmp_path: Path) -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        bench.clock.advance(0.5)
        return double(inputs)

    bench = Bench(tmp_path, lambda path, options: FakeEngine(DOUBLING, compute))
    bench.add("m", 1, yaml=TARGET)
    bench.repository.load("m")
    for _ in range(25):
        assert bench.submit(1.0).wait().outputs
    rows = bench.metrics.of("m", 1).snapshot().steered
    assert rows == (4, 0.0)
    assert (
        bench.metrics.registry.get_sample_value(
            "inferd_steered_batch_rows", {"model": "m", "version": "1"}
        )
        == 4
    )
    assert bench.repository.close(WITHIN)


def test_models_run_in_turns_where_only_one_may(tmp_path: Path) -> None:
    bench = Bench(tmp_path, engine=EngineSettings(concurrent_runs=1))
    for name in ("a", "b"):
        bench.add(name, 1, yaml="weight: 2\nmax_batch_size: 8\nwarm_up: []\n")
        bench.repository.load(name)
    first, second = bench.engines.opened
    for engine in (first, second):
        engine.batches.clear()
        engine.running.clear()
    first.hold()
    held = bench.submit(1.0, name="a")
    assert first.running.wait(WITHIN)
    waiting = bench.submit(2.0, name="b")
    third = bench.submit(np.float32(3.0), name="b")
    assert not second.running.is_set()
    first.release()
    for caller in (held, waiting, third):
        assert caller.wait().outputs
    assert second.running.is_set()
    assert bench.repository.close(WITHIN)
