"""What model.yaml says of shares, in a model that was loaded by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from inferd_server.settings.model import EngineSettings

from tests.server.models.bench import WITHIN, Bench


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
