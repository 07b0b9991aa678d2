"""A TensorRT engine over doubles: a fake driver, a fake runtime, real everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_engines.engine import Signature
from inferd_engines.tensorrt.device import Device, load_driver, open_device
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range, profiles_for
from inferd_engines.tensorrt.shim import Library

from tests.fakes.cuda import FakeDriver, FakeGraphs
from tests.fakes.tensorrt import Compute, FakeModel, FakeTensorRT

PLAN = b"a plan"


@dataclass
class Bench:
    """One host with a fake GPU. Its context is current from `open` to `close`."""

    driver: FakeDriver = field(default_factory=FakeDriver)
    models: dict[bytes, FakeModel] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trt = FakeTensorRT(self.driver, self.models)
        self.library = Library(self.trt, "tensorrt", self.trt.__version__)
        self.graphs = FakeGraphs(self.driver)
        self.device: Device = open_device(load_driver(lambda _: self.driver))
        self.device.enter()

    def open(
        self,
        signature: Signature,
        compute: Compute,
        *,
        buckets: Sequence[int] = (1, 2, 4, 8),
        ranges: Mapping[str, Range] | None = None,
        batched: bool = True,
        graphs: bool = True,
        dependent: Sequence[str] = (),
    ) -> TensorRTEngine:
        """Put a plan there and load it."""
        options = BuildOptions(buckets=tuple(buckets), ranges=ranges or {}, batched=batched)
        profiles = profiles_for(signature, buckets, options.ranges, batched=batched)
        self.models[PLAN] = FakeModel(signature, compute, profiles, dependent=frozenset(dependent))
        return self.load(signature, options, graphs=graphs)

    def load(
        self, signature: Signature, options: BuildOptions | None = None, *, graphs: bool = True
    ) -> TensorRTEngine:
        """Load the plan that is there."""
        return load(
            self.library,
            self.device,
            PLAN,
            signature,
            options or BuildOptions(),
            self.graphs if graphs else None,
        )

    def close(self) -> None:
        """Take the context away."""
        self.device.leave()
