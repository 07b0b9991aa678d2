"""A TensorRT engine over real pycuda on the stand-in for the driver, and a double of TensorRT."""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from inferd_engines.engine import Signature
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.pinned import HostMemory
from inferd_engines.tensorrt.profiles import Range, profiles_for
from inferd_engines.tensorrt.shim import Library

from tests.device.library import Missing
from tests.device.standin import Standin, device
from tests.fakes.tensorrt import Compute, FakeModel, FakeTensorRT
from tests.fakes.tensorrt_rtx import FakeRtx

PLAN = b"a plan"


def standin() -> Standin:
    """Return the stand-in; the test is skipped where it cannot be had."""
    try:
        return Standin()
    except Missing as error:
        pytest.skip(str(error))


class NoWait:
    """An event that is there at once, in place of one that is waited for."""

    def synchronize(self) -> None:
        """Return."""


@dataclass
class Bench:
    """One host with a GPU that is a stand-in. Its context is current until `close`."""

    models: dict[bytes, FakeModel] = field(default_factory=dict)
    rtx: bool = False
    """Whether it has TensorRT-RTX."""
    index: int = 0
    """Of the GPU."""

    def __post_init__(self) -> None:
        self.standin = standin()
        # So that looking for garbage in `close` takes no time for what was there before.
        gc.freeze()
        self.trt = (FakeRtx if self.rtx else FakeTensorRT)(self.standin, self.models)
        name = "tensorrt_rtx" if self.rtx else "tensorrt"
        self.library = Library(self.trt, name, self.trt.__version__)
        found: Device = device(self.index)
        self.device = replace(found, host_memory=HostMemory(found.libcuda))
        self.cuda: Any = found.cuda
        self.options = BuildOptions()
        self.engines: list[TensorRTEngine] = []
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
        noise: float = 0.0,
        by_context: float = 0.0,
    ) -> TensorRTEngine:
        """Put a plan there and load it."""
        options = BuildOptions(buckets=tuple(buckets), ranges=ranges or {}, batched=batched)
        self.options = options
        profiles = profiles_for(signature, buckets, options.ranges, batched=batched)
        self.models[PLAN] = FakeModel(
            signature,
            compute,
            profiles,
            dependent=frozenset(dependent),
            noise=noise,
            by_context=by_context,
        )
        return self.load(signature, options, graphs=graphs)

    def load(
        self, signature: Signature, options: BuildOptions | None = None, *, graphs: bool = True
    ) -> TensorRTEngine:
        """Load the plan that is there, with the options that it was put there with."""
        options = options or self.options
        made = load(self.library, self.device, PLAN, signature, options, graphs=graphs)
        self.engines.append(made)
        return made

    def close(self) -> None:
        """Close what tests left open, and take the context away."""
        self.standin.mend()
        while self.engines:
            self.engines.pop().close()
        # Pinned memory in the frames of errors that a test caught: not on another thread later.
        gc.collect()
        gc.unfreeze()
        self.device.leave()
