"""From a stored plan to an engine: read, checked against the model, and found to fit."""

from __future__ import annotations

from typing import Any

from inferd_engines.engine import Signature, Tensor
from inferd_engines.tensorrt.arena import arrange
from inferd_engines.tensorrt.budget import Needs, shortage
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.engine import LANES, TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.graphs import Graphs
from inferd_engines.tensorrt.loaded import Loaded, Shapes, shapes_on
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Profile, profiles_for
from inferd_engines.tensorrt.recording import Recording, logger_of, recorder_of
from inferd_engines.tensorrt.shim import Library, required
from inferd_engines.tensorrt.tensors import dtype_of


def load(
    library: Library,
    device: Device,
    plan: bytes,
    signature: Signature,
    options: BuildOptions,
    graphs: Graphs | None,
) -> TensorRTEngine:
    """Read a plan and make an engine of it. With the device's context current.

    Args:
        library: that reads it.
        device: that runs it.
        plan: serialised, from a store that is trusted as far as its bytes are checked.
        signature: of the model that it was built from.
        options: that it was built with.
        graphs: of this host; None to run without.

    Raises:
        PlanRefused: TensorRT cannot read it, it is not of this model, or it does not fit.
        TensorRTError: TensorRT failed.
    """
    trt, recording = library.module, Recording()
    runtime = required(trt.Runtime(logger_of(trt, recording)), "make a runtime", recording)
    runtime.error_recorder = recorder_of(trt, recording)
    refused = "" if not hasattr(runtime, "get_engine_validity") else validity(trt, runtime, plan)
    if refused:
        raise PlanRefused(f"TensorRT does not take the plan: {refused}")
    profiles = profiles_for(signature, options.buckets, options.ranges, batched=options.batched)
    buckets = tuple(profile.rows for profile in profiles if profile.rows)
    free = device.free_bytes()
    check_room(Needs(len(plan), 0, 0, LANES * len(buckets)), free)
    engine = required(
        runtime.deserialize_cuda_engine(plan), "read the plan", recording, PlanRefused
    )
    check_model(trt, engine, signature)
    shapes = largest(trt, engine, signature, profiles, recording)
    loaded = Loaded(trt, engine, signature, buckets, shapes, recording, len(plan))
    check_room(needs(loaded, LANES), device.free_bytes())
    return TensorRTEngine(device, loaded, f"{library.flavour}/{device.gpu.name}", graphs)


def validity(trt: Any, runtime: Any, plan: bytes) -> str:
    """Return why a plan is not for this host, where TensorRT tells; "" if it is, or may be."""
    status, diagnostics = runtime.get_engine_validity(plan)
    invalid = getattr(getattr(trt, "EngineValidity", None), "INVALID", None)
    return f"{status} {diagnostics}" if invalid is not None and status == invalid else ""


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
    trt: Any,
    engine: Any,
    signature: Signature,
    profiles: tuple[Profile, ...],
    recording: Recording,
) -> Shapes:
    """Return the largest shape of every tensor over all profiles, where it is known before a run.

    Raises:
        TensorRTError: TensorRT refused.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    context = required(engine.create_execution_context(strategy), "make a context", recording)
    if len(profiles) > 1:
        last = len(profiles) - 1
        chosen = context.set_optimization_profile_async(last, 0)
        required(chosen, f"choose profile {last}", recording)
    most = profiles[-1].ranges if profiles else {}
    inputs = {
        tensor.name: most[tensor.name].most if tensor.name in most else static(tensor)
        for tensor in signature.inputs
    }
    return shapes_on(context, signature, inputs, recording)


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
    arena = arrange(loaded.sized, loaded.largest).nbytes
    return Needs(0, lanes * scratch, lanes * arena, lanes * profiles)


def check_room(found: Needs, free: int) -> None:
    """Refuse what does not fit, rather than run out of memory half-way.

    Raises:
        PlanRefused: it does not.
    """
    if problem := shortage(found, free):
        raise PlanRefused(problem)
