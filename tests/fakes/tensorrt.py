"""A double for TensorRT's runtime: contexts that compute in numpy, on a stream of the stand-in.

A plan is the name of a `FakeModel`. What the real runtime checks is checked: addresses set and
aligned, shapes within the profile, one profile for each context, contexts used on one stream
at a time. Inputs are read and outputs written only when the stream comes to it, by a function of
the host that is launched there, and captured where the stream is.
"""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Any

import numpy as np
from inferd_engines.engine import Array, Signature, Tensor
from inferd_engines.tensorrt.graphs import uncollected
from inferd_engines.tensorrt.profiles import Profile
from inferd_engines.tensorrt.tensors import DTYPES

from tests.device.standin import ILLEGAL_ADDRESS, Standin

Compute = Callable[[Mapping[str, Array]], Mapping[str, Array]]
ALIGNMENT = 256

DataType = Enum("DataType", [*DTYPES, "FP8", "INT4"])  # type: ignore[misc]


class TensorIOMode(Enum):
    """As TensorRT's."""

    INPUT = 1
    OUTPUT = 2


class ExecutionContextAllocationStrategy(Enum):
    """As TensorRT's."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class ErrorCodeTRT(Enum):
    """As TensorRT's, in part."""

    SUCCESS = 0
    UNSPECIFIED_ERROR = 1


class ILogger:
    """The base of loggers."""

    class Severity(Enum):
        """As TensorRT's."""

        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4


class IErrorRecorder:
    """The base of error recorders."""


class IOutputAllocator:
    """The base of output allocators."""

    made = False

    def __init__(self) -> None:
        self.made = True


class ComputeError(Exception):
    """What a model may raise: the device fails with a code of the driver, for ever or once."""

    def __init__(self, code: int, *, sticky: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.sticky = sticky


class Kernels:
    """Functions that streams of the stand-in call."""

    def __init__(self, standin: Standin) -> None:
        self._standin = standin
        self._functions: dict[int, tuple[Callable[[], None], bool]] = {}
        self._made = 0
        self.in_graph = False
        """True while what runs was captured."""
        # Kept as long as a stream may call it.
        self._entry = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self._enter)

    def launch(self, stream: int, function: Callable[[], None]) -> int:
        """Run a function once the stream comes to it; again and again if it is captured.

        Returns 0, or the driver's error.
        """
        self._made += 1
        self._functions[self._made] = (function, self._standin.capturing(stream))
        return self._standin.call_on(stream, self._entry, self._made)

    def _enter(self, number: int) -> None:
        function, self.in_graph = self._functions[number]
        if not self.in_graph:
            del self._functions[number]
        try:
            # On this thread pycuda's objects could not be given back.
            with uncollected(), np.errstate(all="ignore"):
                function()
        except ComputeError as error:
            if error.sticky:
                self._standin.break_context(error.code)
            else:
                self._standin.fail_wait(error.code)


@dataclass
class FakeModel:
    """What a plan does."""

    signature: Signature
    compute: Compute
    profiles: Sequence[Profile]
    scratch: int = 1024
    """Bytes of activations."""
    dependent: frozenset[str] = frozenset()
    """Outputs whose shapes depend on the data."""
    shaping: frozenset[str] = frozenset()
    """Inputs whose values are shapes of others."""
    host_code: bool = False
    """Whether the plan brings code that loading it runs."""
    capturable: bool = True
    """What TensorRT-RTX says of its runs."""
    noise: float = 0.0
    """How much a run may differ from the one before, as sums in any order do."""


@dataclass(eq=False)
class ExecutionContext:
    """Shapes and addresses of one profile, and runs on a stream."""

    engine: CudaEngine
    profile: int = 0
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    allocators: dict[str, weakref.ref[Any]] = field(default_factory=dict)
    scratch: int = 0
    told: int = 0
    """How often it was told a shape."""

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        """Choose a profile, which no other context has."""
        del stream
        self.profile = index
        return self.engine.runtime.works() and 0 <= index < max(1, len(self.engine.model.profiles))

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Take a shape of an input, if the profile allows it."""
        self.told += 1
        tensor = self.engine.tensors[name]
        if not self.engine.allows(self.profile, tensor, tuple(shape)):
            return self.engine.runtime.fail(f"the shape {tuple(shape)} of {name} is not allowed")
        self.shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor, as far as the inputs decide it."""
        if name in self.shapes:
            return self.shapes[name]
        if name in self.engine.model.dependent:
            return tuple(-1 if size is None else size for size in self.engine.tensors[name].shape)
        inputs = {
            tensor.name: np.zeros(self._shape(tensor), tensor.dtype)
            for tensor in self.engine.model.signature.inputs
        }
        return tuple(self.engine.model.compute(inputs)[name].shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        """Take an address, which has to be aligned."""
        if address % ALIGNMENT:
            return self.engine.runtime.fail(f"the address of {name} is not aligned")
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        """Take an allocator, which somebody else has to keep."""
        assert allocator.made, "IOutputAllocator.__init__ was not called"
        self.allocators[name] = weakref.ref(allocator)
        return True

    def set_device_memory(self, address: int, nbytes: int) -> None:
        """Take the memory for activations."""
        assert nbytes >= self.engine.model.scratch
        self.scratch = address

    def execute_async_v3(self, stream: int) -> bool:
        """Run, once the stream comes to it."""
        runtime, model = self.engine.runtime, self.engine.model
        if not runtime.works():
            return False
        runtime.when_run(stream)
        known = {*self.addresses, *self.allocators}
        if missing := [name for name in self.engine.tensors if name not in known]:
            return runtime.fail(f"the address of {missing[0]} is not set")
        if model.scratch and not self.scratch:
            return runtime.fail("there is no memory for activations")
        if runtime.failures:
            return runtime.fail(runtime.failures.pop(0))
        if model.dependent:
            return self._run_dependent(stream)
        compute = partial(self._compute, self._input_shapes(), dict(self.addresses))
        return runtime.launched(runtime.kernels.launch(stream, compute))

    def _run_dependent(self, stream: int) -> bool:
        """Find the shapes at once, which takes a wait, and write the outputs later."""
        runtime = self.engine.runtime
        if runtime.standin.library.cuStreamSynchronize(ctypes.c_void_p(stream)):
            return runtime.fail("the stream cannot be waited for")
        inputs = self._inputs(self._input_shapes(), self.addresses)
        results = self.engine.model.compute(inputs)
        for name in self.engine.model.dependent:
            result = results[name]
            # More than the shape needs, as TensorRT asks for what may be needed at most.
            found = self._ask(name, result.nbytes + ALIGNMENT, stream)
            if not found or not self.set_tensor_address(name, found):
                return runtime.fail(f"the allocator has no memory for {name}")
            assert runtime.standin.view(found, result.nbytes + ALIGNMENT) is not None
            self.allocators[name]().notify_shape(name, result.shape)
        write = partial(self._write, results, dict(self.addresses))
        return runtime.launched(runtime.kernels.launch(stream, write))

    def _ask(self, name: str, nbytes: int, stream: int) -> int:
        """Ask for memory, as the versions do that have the one call or the other."""
        allocator = self.allocators[name]()
        assert allocator is not None, "nobody kept the allocator"
        current = self.addresses.get(name, 0)
        if self.engine.runtime.asynchronous:
            found = allocator.reallocate_output_async(name, current, nbytes, ALIGNMENT, stream)
        else:
            found = allocator.reallocate_output(name, current, nbytes, ALIGNMENT)
        assert isinstance(found, int), "the bindings take an integer"
        return found

    def _compute(self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]) -> None:
        results = self.engine.model.compute(self._inputs(shapes, addresses))
        noise = self.engine.model.noise * self.engine.runtime.random()
        if noise:
            results = {name: (one * (1 + noise)).astype(one.dtype) for name, one in results.items()}
        self._write(results, addresses)

    def _inputs(
        self, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]
    ) -> Mapping[str, Array]:
        return {
            tensor.name: self._array(tensor, shapes[tensor.name], addresses[tensor.name]).copy()
            for tensor in self.engine.model.signature.inputs
        }

    def _write(self, results: Mapping[str, Array], addresses: Mapping[str, int]) -> None:
        for tensor in self.engine.model.signature.outputs:
            result = results[tensor.name]
            self._array(tensor, result.shape, addresses[tensor.name])[...] = result

    def _input_shapes(self) -> Mapping[str, tuple[int, ...]]:
        inputs = self.engine.model.signature.inputs
        return {tensor.name: self._shape(tensor) for tensor in inputs}

    def _array(self, tensor: Tensor, shape: tuple[int, ...], address: int) -> Array:
        nbytes = tensor.dtype.itemsize * math.prod(shape)
        memory = self.engine.runtime.standin.view(address, nbytes)
        if memory is None:
            raise ComputeError(ILLEGAL_ADDRESS, sticky=True)
        return memory.view(tensor.dtype).reshape(shape)

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        found = self.shapes.get(tensor.name)
        return found if found is not None else tuple(size or 0 for size in tensor.shape)


class CudaEngine:
    """A plan that was read."""

    def __init__(self, runtime: Runtime, model: FakeModel) -> None:
        self.runtime = runtime
        self.model = model
        self.tensors = {
            tensor.name: tensor for tensor in (*model.signature.inputs, *model.signature.outputs)
        }
        self.contexts: list[ExecutionContext] = []
        self.compiled: list[int] = []
        self.device_memory_size_v2 = model.scratch

    @property
    def num_io_tensors(self) -> int:
        """How many there are."""
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        """How many there are."""
        return max(1, len(self.model.profiles))

    def get_tensor_name(self, index: int) -> str:
        """Return the name of a tensor."""
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Tell inputs from outputs."""
        inputs = [tensor.name for tensor in self.model.signature.inputs]
        return TensorIOMode.INPUT if name in inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        """Return a tensor's datatype."""
        dtype = self.tensors[name].dtype
        return DataType[next(key for key, value in DTYPES.items() if value == dtype)]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, with -1 for what is free."""
        return tuple(-1 if size is None else size for size in self.tensors[name].shape)

    def is_shape_inference_io(self, name: str) -> bool:
        """True if the values of a tensor are shapes of others."""
        return name in self.model.shaping

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        """Return the bytes of activations."""
        assert 0 <= profile < self.num_optimization_profiles
        return self.model.scratch

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
    ) -> ExecutionContext | None:
        """Make a context."""
        assert strategy is ExecutionContextAllocationStrategy.USER_MANAGED
        if not self.runtime.works():
            return None
        made = ExecutionContext(self)
        self.contexts.append(made)
        return made

    def allows(self, profile: int, tensor: Tensor, shape: tuple[int, ...]) -> bool:
        """True if a profile has this shape in its range."""
        if not self.model.profiles:
            return shape == tensor.shape
        found = self.model.profiles[profile].ranges.get(tensor.name)
        if found is None:
            return shape == tensor.shape
        return len(shape) == len(found.most) and all(
            least <= size <= most
            for least, size, most in zip(found.least, shape, found.most, strict=True)
        )


class Runtime:
    """Reads plans."""

    def __init__(self, module: FakeTensorRT, logger: Any) -> None:
        self.standin = module.standin
        self.kernels = module.kernels
        self.failures = module.failures
        self.asynchronous = module.asynchronous
        self.error_recorder: Any = None
        self.engine_host_code_allowed = False
        self.random = np.random.default_rng(0).random
        self._module = module
        self._logger = logger

    def when_run(self, stream: int) -> None:
        """Do what a test wants to be done within a run."""
        self._module.when_run(stream)

    def deserialize_cuda_engine(self, plan: bytes) -> CudaEngine | None:
        """Read a plan; None if it is none."""
        if not self.works():
            return None
        model = self._module.models.get(bytes(plan))
        if model is None:
            self.fail("the plan is not one of this version")
            return None
        if model.host_code and not self.engine_host_code_allowed:
            self.fail("the plan holds code of the host, which is not allowed")
            return None
        self._module.engines.append(self._module.ICudaEngine(self, model))
        self._module.engines[-1].compiled = self._module.compiled
        return self._module.engines[-1]

    def works(self) -> bool:
        """Ask for a current context, which TensorRT uses without a word whichever it is."""
        unused = ctypes.c_size_t()
        code = self.standin.library.cuMemGetInfo_v2(ctypes.byref(unused), ctypes.byref(unused))
        return code == 0 or self.fail(f"CUDA error {code}")

    def launched(self, code: int) -> bool:
        """True if work was launched, which the driver says."""
        return code == 0 or self.fail(f"CUDA error {code}")

    def fail(self, text: str) -> bool:
        """Say why, and return False, as TensorRT does."""
        self._logger.log(ILogger.Severity.ERROR, text)
        return False


class FakeTensorRT:
    """The module `tensorrt`, which runs plans and builds none."""

    __version__ = "0.0.fake"
    DataType = DataType
    TensorIOMode = TensorIOMode
    ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy
    ErrorCodeTRT = ErrorCodeTRT
    ILogger = ILogger
    IErrorRecorder = IErrorRecorder
    IOutputAllocator = IOutputAllocator
    ICudaEngine = CudaEngine
    IExecutionContext = ExecutionContext

    def __init__(self, standin: Standin, models: Mapping[bytes, FakeModel]) -> None:
        self.standin = standin
        self.kernels = Kernels(standin)
        self.when_run: Callable[[int], object] = lambda _stream: None
        """Called with the stream within every run, as TensorRT is."""
        self.models = models
        self.engines: list[CudaEngine] = []
        self.compiled: list[int] = []
        """Profiles that were compiled on this GPU: none, but by the double of TensorRT-RTX."""
        self.failures: list[str] = []
        """What the next runs fail with, each one once."""
        self.loggers: list[Any] = []
        """That runtimes were made with; TensorRT uses the first of them for ever."""
        self.asynchronous = True
        """Whether memory of outputs is asked for with the call that knows streams."""

    def Runtime(self, logger: Any) -> Runtime:  # noqa: N802 TensorRT calls it that
        """Make a runtime."""
        self.loggers.append(logger)
        return Runtime(self, logger)
