"""From a stored plan to an engine: read, checked against the model, and found to fit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.budget import Needs, shortage
from inferd_engines.tensorrt.buffers import arrange
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.engine import LANES, TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused, TensorRTError
from inferd_engines.tensorrt.graphs import WAYS
from inferd_engines.tensorrt.loaded import Loaded, Shapes, shapes_on
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Profile, profiles_for
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of, recorder_of
from inferd_engines.tensorrt.shim import Library, required
from inferd_engines.tensorrt.tensors import dtype_of

log = logging.getLogger(__name__)
REASONS: Mapping[str, str] = {
    "CUDA_ERROR": "CUDA fails on this host",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory for it",
    "MALFORMED_ENGINE": "its bytes are no plan; remove it from the store, to have it built anew",
    "OLD_CUDA_DRIVER": "the NVIDIA driver is older than the plan wants; update the driver",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is older than the plan wants",
    "UNSUPPORTED_CC": "it was built for other GPUs; build it with this one's compute capability",
    "VERSION_MISMATCH": "it was built by another version of TensorRT; build it with this one",
}
"""What the bits of an invalid plan mean, by TensorRT's name, and what to do."""


def load(
    library: Library,
    device: Device,
    plan: bytes,
    signature: Signature,
    options: BuildOptions,
    *,
    graphs: bool = True,
    block: bool = False,
    runtime_cache: bytes = b"",
) -> TensorRTEngine:
    """Read a plan and make an engine of it. With the device's context current.

    Args:
        library: that reads it.
        device: that runs it.
        plan: serialised, from a store that is trusted as far as its bytes are checked.
        signature: of the model that it was built from.
        options: that it was built with.
        graphs: False to run without CUDA graphs.
        block: True to sleep while the GPU runs, False to spin on a core.
        runtime_cache: what an engine of this plan compiled for this GPU before.

    Raises:
        PlanRefused: TensorRT cannot read it, it is not of this model, or it does not fit.
        TensorRTError: TensorRT failed; `fatal` if the device does not work any more.
    """
    try:
        loaded = read(library, device, plan, signature, options, runtime_cache)
        check_room(needs(loaded, LANES), device.free_bytes())
    except (device.cuda.Error, TensorRTError) as error:
        if not device.works():
            raise TensorRTError(str(error), fatal=True) from error
        if isinstance(error, TensorRTError):
            raise
        raise TensorRTError(f"the plan could not be read: {error}") from error
    name = f"{library.flavour}/{device.gpu.name}"
    return TensorRTEngine(device, loaded, name, graphs=graphs, block=block)


def read(
    library: Library,
    device: Device,
    plan: bytes,
    signature: Signature,
    options: BuildOptions,
    runtime_cache: bytes,
) -> Loaded:
    """Read a plan, if there is room for it.

    Raises:
        PlanRefused: TensorRT cannot read it, it is not of this model, or it does not fit.
        TensorRTError: TensorRT failed.
        pycuda.driver.Error: the device failed.
    """
    trt, recording = library.module, Recording()
    listeners_of(trt).listen(recording)
    runtime = required(trt.Runtime(logger_of(trt)), "make a runtime", recording)
    runtime.error_recorder = recorder_of(trt, recording)
    # Such a plan brings the code that runs it; the store is where it was put by `inferd build`.
    runtime.engine_host_code_allowed = options.version_compatible
    check_valid(trt, runtime, plan, recording)
    profiles = profiles_for(signature, options.buckets, options.ranges, batched=options.batched)
    buckets = tuple(profile.rows for profile in profiles if profile.rows)
    check_room(Needs(len(plan), 0, 0, LANES * WAYS * len(buckets)), device.free_bytes())
    engine = required(
        runtime.deserialize_cuda_engine(plan), "read the plan", recording, PlanRefused
    )
    check_model(trt, engine, signature)
    contexts = Contexts(trt, engine, runtime_cache)
    shapes = largest(contexts.make, signature, profiles, recording)
    return Loaded(
        trt,
        engine,
        signature,
        buckets,
        shapes,
        recording,
        len(plan),
        contexts.make,
        contexts.compiled,
    )


class Contexts:
    """Makes the execution contexts of one plan, which share what is compiled for this GPU.

    TensorRT-RTX compiles kernels when a context is made or first run, and by itself puts that off:
    a graph would keep the slow kernels of the first run for ever. So it compiles at once here.
    """

    def __init__(self, trt: Any, engine: Any, before: bytes) -> None:
        """Prepare.

        Args:
            trt: the module.
            engine: of TensorRT.
            before: what was compiled earlier; empty for nothing.
        """
        self._engine = engine
        self._how: Any = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        self._cache: Any = None
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(self._how)
        eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = eager
        self._cache = config.create_runtime_cache()
        if before and not self._cache.deserialize(before):
            log.warning("TensorRT does not take the runtime cache, and compiles anew")
        config.set_runtime_cache(self._cache)
        self._how = config

    def make(self) -> Any:
        """Return a context, whose memory for activations is ours; None if that fails."""
        return self._engine.create_execution_context(self._how)

    def compiled(self) -> bytes:
        """Return what was compiled; empty for a flavour that compiles when it builds."""
        return b"" if self._cache is None else bytes(self._cache.serialize())


def check_valid(trt: Any, runtime: Any, plan: bytes, recording: Recording) -> None:
    """Refuse a plan that TensorRT knows not to be for this host, from its first bytes.

    Raises:
        PlanRefused: it is not; with what to do.
    """
    if not hasattr(runtime, "get_engine_validity"):
        return
    status, diagnostics = runtime.get_engine_validity(plan)
    if status != trt.EngineValidity.INVALID:
        return
    reasons = "; ".join(meanings(trt, int(diagnostics)))
    what = "TensorRT does not take the plan"
    raise PlanRefused(f"{what}: {reasons}" if reasons else recording.explain(what))


def meanings(trt: Any, bits: int) -> list[str]:
    """Return what the bits of an invalid plan say, and what to do."""
    names = getattr(trt.EngineInvalidityDiagnostics, "__members__", {})
    return [REASONS.get(name, name) for name, bit in names.items() if int(bit) & bits]


def check_model(trt: Any, engine: Any, signature: Signature) -> None:
    """Refuse a plan with other inputs or outputs than the model.

    Raises:
        PlanRefused: names or datatypes differ, or the values of an input decide shapes.
    """
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    found = {name: dtype_of(trt, engine.get_tensor_dtype(name)) for name in names}
    wanted = {tensor.name: tensor.dtype for tensor in (*signature.inputs, *signature.outputs)}
    if found != wanted:
        raise PlanRefused(f"the plan has the tensors {found}, and the model {wanted}")
    inputs = [tensor.name for tensor in signature.inputs]
    # TensorRT would want these on the host, and their values before it knows any shape.
    if shaping := [name for name in inputs if engine.is_shape_inference_io(name)]:
        raise PlanRefused(f"the values of input {shaping[0]!r} are shapes of other tensors")


def largest(
    make_context: Callable[[], Any],
    signature: Signature,
    profiles: tuple[Profile, ...],
    recording: Recording,
) -> tuple[Shapes, ...]:
    """Return the largest shape of every tensor for each profile, where it is known before a run.

    Raises:
        TensorRTError: TensorRT refused.
    """
    context = required(make_context(), "make a context", recording)
    found = []
    for index, profile in enumerate(profiles or (Profile(0),)):
        if index:
            chosen = context.set_optimization_profile_async(index, 0)
            required(chosen, f"choose profile {index}", recording)
        most = {name: ends.most for name, ends in profile.ranges.items()}
        inputs = {one.name: most.get(one.name) or static(one) for one in signature.inputs}
        found.append(shapes_on(context, signature, inputs, recording))
    return tuple(found)


def static(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of an input without free dimensions."""
    return tuple(size or 0 for size in tensor.shape)


def needs(loaded: Loaded, lanes: int) -> Needs:
    """Return what a plan that was read still takes: its weights are there already.

    Outputs whose shapes depend on the data are not counted, because nobody knows them yet.
    """
    engine = loaded.engine
    profiles = max(1, len(loaded.buckets))
    scratch = max(
        int(engine.get_device_memory_size_for_profile_v2(profile)) for profile in range(profiles)
    )
    arena = max(arrange(loaded.sized, shapes).nbytes for shapes in loaded.largest)
    return Needs(0, lanes * scratch, lanes * arena, lanes * WAYS * profiles)


def check_room(found: Needs, free: int) -> None:
    """Refuse what does not fit, rather than run out of memory half-way.

    Raises:
        PlanRefused: it does not.
    """
    if problem := shortage(found, free):
        raise PlanRefused(problem)
