"""A double for TensorRT-RTX: what it has besides, and that it compiles a plan on the GPU.

A kernel is one profile of a plan. It is compiled when a context runs it first, unless the context's
runtime cache has it.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from tests.fakes.tensorrt import (
    CudaEngine,
    ExecutionContext,
    ExecutionContextAllocationStrategy,
    FakeTensorRT,
)

DynamicShapesKernelSpecializationStrategy = Enum(  # type: ignore[misc]
    "DynamicShapesKernelSpecializationStrategy", ["LAZY", "EAGER", "NONE"]
)
MAGIC = b"kernels:"


class IRuntimeCache:
    """Kernels that were compiled."""

    def __init__(self) -> None:
        self.kernels: set[str] = set()

    def deserialize(self, data: bytes) -> bool:
        """Read what was kept; False if it is something else."""
        if not data.startswith(MAGIC):
            return False
        self.kernels |= set(filter(None, data.removeprefix(MAGIC).decode().split(",")))
        return True

    def serialize(self) -> bytes:
        """As it is kept."""
        return MAGIC + ",".join(sorted(self.kernels)).encode()


class IRuntimeConfig:
    """How contexts are made."""

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy: Any = (
            DynamicShapesKernelSpecializationStrategy["LAZY"]
        )
        self._strategy = ExecutionContextAllocationStrategy.STATIC
        self._cache = IRuntimeCache()

    def set_execution_context_allocation_strategy(
        self, strategy: ExecutionContextAllocationStrategy
    ) -> None:
        """Say whose the memory for activations is."""
        self._strategy = strategy

    def get_execution_context_allocation_strategy(self) -> ExecutionContextAllocationStrategy:
        """Return whose it is."""
        return self._strategy

    def create_runtime_cache(self) -> IRuntimeCache:
        """Make an empty one."""
        return IRuntimeCache()

    def set_runtime_cache(self, cache: IRuntimeCache) -> bool:
        """Share a cache."""
        self._cache = cache
        return True

    def get_runtime_cache(self) -> IRuntimeCache:
        """Return the one that is shared."""
        return self._cache


class RtxContext(ExecutionContext):
    """A context that compiles before it runs."""

    config: IRuntimeConfig

    def is_stream_capturable(self, stream: int) -> bool:
        """Tell whether runs can be captured."""
        del stream
        return self.engine.model.capturable

    def execute_async_v3(self, stream: int) -> bool:
        """Compile what is not there, and run."""
        kernels, name = self.config.get_runtime_cache().kernels, str(self.profile)
        if name not in kernels:
            self.engine.compiled.append(self.profile)
            kernels.add(name)
        return super().execute_async_v3(stream)


class RtxEngine(CudaEngine):
    """A plan whose contexts are made by a configuration."""

    def create_runtime_config(self) -> IRuntimeConfig:
        """Make one."""
        return IRuntimeConfig()

    def create_execution_context(self, runtime_config: Any = None) -> ExecutionContext | None:
        """Make a context."""
        strategy = runtime_config.get_execution_context_allocation_strategy()
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        eager = runtime_config.dynamic_shapes_kernel_specialization_strategy
        assert eager.name == "EAGER", "graphs would keep the kernels of the first run"
        if not self.runtime.works():
            return None
        made = RtxContext(self)
        made.config = runtime_config
        self.contexts.append(made)
        return made


class FakeRtx(FakeTensorRT):
    """The module `tensorrt_rtx`, of a GPU that it knows."""

    __version__ = "1.7.fake"
    DynamicShapesKernelSpecializationStrategy = DynamicShapesKernelSpecializationStrategy
    ComputeCapability = Enum("ComputeCapability", ["SM90"])  # type: ignore[misc]
    ICudaEngine = RtxEngine
    IExecutionContext = RtxContext
