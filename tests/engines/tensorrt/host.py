"""A host whose GPU is a stand-in, with a plan store and a builder that waits for the test."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from inferd_engines.engine import Engine, EngineOptions, Tensor
from inferd_engines.tensorrt.background import Builds
from inferd_engines.tensorrt.errors import (
    TensorRTError,
)
from inferd_engines.tensorrt.opener import Gpu, TensorRTOpener, Wanted
from inferd_engines.tensorrt.profiles import profiles_for
from inferd_engines.tensorrt.store import PlanStore

from tests.engines.tensorrt.bench import PLAN, Bench
from tests.fakes.engine import DOUBLING, Compute, FakeEngine, double
from tests.fakes.tensorrt import FakeModel

WITHIN = 30.0
OPTIONS = EngineOptions(extra={"tensorrt.buckets": "1,4"})
ROW = {"INPUT0": np.ones((1, 4), np.float32)}


class Host:
    """A host with a fake GPU, a store, and a builder that waits for the test."""

    TICK = 0.25
    """Seconds between any two looks at its clock."""

    def __init__(self, folder: Path, *, rtx: bool = False) -> None:
        self.bench = Bench(rtx=rtx)
        # Only whoever opens a plan has the context.
        self.bench.close()
        self.store = PlanStore(folder / "plans")
        self.model = folder / "m/1/model.onnx"
        self.model.parent.mkdir(parents=True)
        self.model.write_bytes(b"a model")
        self.may_build = threading.Event()
        self.failure: Exception | None = None
        self.built: SimpleQueue[Path] = SimpleQueue()
        self.references: list[FakeEngine] = []
        self.builds = Builds(self.build)
        self.builds.when_ended(self.built.put)
        gpu = Gpu(self.bench.library, self.bench.device)
        ticks = count()
        self.opener = TensorRTOpener(
            self.store,
            self.reference,
            self.builds,
            lambda: gpu,
            lambda: next(ticks) * self.TICK,
        )
        self.compute: Compute = double
        self.optional: tuple[Tensor, ...] = ()
        self.meddle: Callable[[], object] = lambda: None

    def reference(self, path: Path, options: EngineOptions) -> Engine:
        assert path == self.model
        self.meddle()
        self.references.append(FakeEngine(name="reference/numpy"))
        self.references[-1].overridable = self.optional
        return self.references[-1]

    def build(self, wanted: Wanted) -> None:
        assert self.may_build.wait(WITHIN)
        if self.failure is not None:
            raise self.failure
        self.publish(wanted)

    def publish(self, wanted: Wanted) -> None:
        """Put a plan into the store, and what it does into the fake runtime."""
        options = wanted.options
        profiles = profiles_for(DOUBLING, options.buckets, options.ranges, batched=True)
        self.bench.models[PLAN] = FakeModel(DOUBLING, self.compute, profiles)
        self.store.publish(wanted.key, PLAN, {})

    def open(self) -> Engine:
        return self.opener(self.model, OPTIONS)

    def refusal(self) -> str:
        with pytest.raises(TensorRTError) as refused:
            self.open()
        return str(refused.value)

    def open_built(self) -> Engine:
        """Have the plan built, and open it."""
        self.refusal()
        self.may_build.set()
        assert self.built.get(timeout=WITHIN) == self.model
        return self.open()
