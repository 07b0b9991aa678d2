"""A double of TensorRT whose runs are kernels of ours on whatever GPU there is, or the stand-in.

Where TensorRT does not run on a GPU, this one proves lanes, overlap, graphs, registered memory and
faults there all the same. Its one model doubles its input.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

from inferd_engines.tensorrt.libcuda import LIBCUDA

from tests.fakes.tensorrt import CudaEngine, ExecutionContext, FakeModel, FakeTensorRT

# Writes twice of each float; the driver translates it for any GPU from 7.5 on.
TWICE = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry twice(.param .u64 target, .param .u64 source, .param .u32 count)
{
    .reg .pred %beyond;
    .reg .b32 %index, %block, %size, %thread, %count;
    .reg .b64 %target, %source, %offset;
    .reg .f32 %value;
    ld.param.u64 %target, [target];
    ld.param.u64 %source, [source];
    ld.param.u32 %count, [count];
    mov.u32 %block, %ctaid.x;
    mov.u32 %size, %ntid.x;
    mov.u32 %thread, %tid.x;
    mad.lo.u32 %index, %block, %size, %thread;
    setp.ge.u32 %beyond, %index, %count;
    @%beyond bra END;
    cvta.to.global.u64 %target, %target;
    cvta.to.global.u64 %source, %source;
    mul.wide.u32 %offset, %index, 4;
    add.u64 %target, %target, %offset;
    add.u64 %source, %source, %offset;
    ld.global.f32 %value, [%source];
    add.f32 %value, %value, %value;
    st.global.f32 [%target], %value;
END:
    ret;
}
\0"""
THREADS = 128


class Twice:
    """The kernel, loaded once for a context that is current."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL(LIBCUDA)
        self._function = ctypes.c_void_p()
        self._module = ctypes.c_void_p()

    def launch(self, stream: int, target: int, source: int, count: int) -> int:
        """Have `count` floats doubled once the stream comes to it; return the driver's code."""
        if not self._function:
            self._load()
        arguments = ctypes.c_uint64(target), ctypes.c_uint64(source), ctypes.c_uint32(count)
        pointers = (ctypes.c_void_p * 3)(*(ctypes.addressof(one) for one in arguments))
        blocks = -(-count // THREADS)
        # A grid, a block, shared memory, the stream, parameters.
        return int(
            self.library.cuLaunchKernel(
                self._function, blocks, 1, 1, THREADS, 1, 1, 0, ctypes.c_void_p(stream), pointers, 0
            )
        )

    def _load(self) -> None:
        code = self.library.cuModuleLoadData(ctypes.byref(self._module), TWICE)
        assert code == 0, f"cuModuleLoadData: {code}"
        code = self.library.cuModuleGetFunction(
            ctypes.byref(self._function), self._module, b"twice"
        )
        assert code == 0, f"cuModuleGetFunction: {code}"


class KernelContext(ExecutionContext):
    """A context whose runs are kernels."""

    def execute_async_v3(self, stream: int) -> bool:
        """Launch one on the stream."""
        runtime = self.engine.runtime
        if not runtime.works():
            return False
        (shape,) = self.shapes.values()
        given, made = (self.addresses[name] for name in ("INPUT0", "OUTPUT0"))
        twice: Twice = runtime.kernels
        return runtime.launched(twice.launch(stream, made, given, shape[0] * shape[1]))


class KernelEngine(CudaEngine):
    """A plan whose contexts launch kernels."""

    def create_execution_context(self, strategy: Any = None) -> ExecutionContext | None:
        """Make a context."""
        del strategy
        return KernelContext(self) if self.runtime.works() else None


class KernelTensorRT(FakeTensorRT):
    """The module."""

    __version__ = "0.0.kernels"
    ICudaEngine = KernelEngine
    IExecutionContext = KernelContext

    def __init__(self, models: dict[bytes, FakeModel]) -> None:
        twice = Twice()
        super().__init__(SimpleNamespace(library=twice.library), models)  # type: ignore[arg-type]
        self.kernels = twice  # type: ignore[assignment]
