"""Server and model metadata, configuration and statistics, as messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2 import model_config_pb2 as config
from inferd.tensors import datatype_of
from inferd_engines.engine import Tensor

from inferd_server.monitoring.statistics import Duration, Snapshot
from inferd_server.repository.bounds import Bounds
from inferd_server.repository.config import ControlConfig, SequenceConfig
from inferd_server.repository.handle import Handle
from inferd_server.sequences.controls import ControlKind

BACKENDS = {"tensorrt": "tensorrt_plan", "onnxruntime": "onnxruntime_onnx"}
"""By what the name of an engine begins with, the platform: names of Triton's."""


CONTROLS: Mapping[ControlKind, str] = {
    "start": "CONTROL_SEQUENCE_START",
    "ready": "CONTROL_SEQUENCE_READY",
    "end": "CONTROL_SEQUENCE_END",
    "correlation_id": "CONTROL_SEQUENCE_CORRID",
}


def metadata(handle: Handle, versions: list[int]) -> oip.ModelMetadataResponse:
    """Describe a model's tensors; -1 stands for a free dimension."""
    return oip.ModelMetadataResponse(
        name=handle.name,
        versions=[str(version) for version in versions],
        platform=BACKENDS[backend_of(handle)],
        inputs=[_tensor(tensor) for tensor in handle.signature.inputs],
        outputs=[_tensor(tensor) for tensor in handle.signature.outputs],
    )


def _tensor(tensor: Tensor) -> oip.ModelMetadataResponse.TensorMetadata:
    return oip.ModelMetadataResponse.TensorMetadata(
        name=tensor.name, datatype=datatype_of(tensor.dtype), shape=_dims(tensor, batched=False)
    )


def model_config(handle: Handle) -> config.ModelConfig:
    """Describe how a model is served."""
    bounds, backend = handle.bounds, backend_of(handle)
    kind = (
        config.ModelInstanceGroup.KIND_CPU
        if "CPU" in handle.engine
        else config.ModelInstanceGroup.KIND_GPU
    )
    answer = config.ModelConfig(
        name=handle.name,
        platform=BACKENDS[backend],
        backend=backend,
        version_policy=_policy(handle),
        max_batch_size=bounds.max_batch_size,
        input=[_input(tensor, handle) for tensor in handle.signature.inputs],
        output=[_output(tensor, handle.batched) for tensor in handle.signature.outputs],
        instance_group=[
            config.ModelInstanceGroup(name=handle.name, kind=kind, count=handle.config.instances)
        ],
        default_model_filename=handle.file_name,
    )
    if handle.config.response_cache is not None:
        answer.response_cache.enable = True
    if handle.config.sequence is not None:
        answer.sequence_batching.CopyFrom(_sequences(handle.config.sequence, bounds))
    elif handle.batched:
        answer.dynamic_batching.max_queue_delay_microseconds = round(bounds.max_queue_delay * 1e6)
        answer.dynamic_batching.preferred_batch_size.extend(_preferred(bounds))
        answer.dynamic_batching.default_queue_policy.max_queue_size = bounds.max_queue_rows
    for name, value in _facts(handle).items():
        answer.parameters[name].string_value = value
    return answer


def _sequences(asked: SequenceConfig, bounds: Bounds) -> config.ModelSequenceBatching:
    batching = config.ModelSequenceBatching
    answer = batching(
        max_sequence_idle_microseconds=round(asked.idle_s * 1e6),
        control_input=[_control(control) for control in asked.controls],
        state=[
            batching.State(input_name=pair.input, output_name=pair.output) for pair in asked.states
        ],
    )
    answer.oldest.max_candidate_sequences = min(asked.max_sequences, 2**31 - 1)
    answer.oldest.max_queue_delay_microseconds = round(bounds.max_queue_delay * 1e6)
    if bounds.max_batch_size:
        answer.oldest.preferred_batch_size.extend(_preferred(bounds))
    return answer


def _control(asked: ControlConfig) -> config.ModelSequenceBatching.ControlInput:
    control = config.ModelSequenceBatching.Control(kind=CONTROLS[asked.kind])
    if asked.kind != "correlation_id":
        whole = all(float(value).is_integer() for value in asked.false_true)
        values = [int(value) for value in asked.false_true] if whole else asked.false_true
        getattr(control, "int32_false_true" if whole else "fp32_false_true").extend(values)
    return config.ModelSequenceBatching.ControlInput(name=asked.input, control=[control])


def _preferred(bounds: Bounds) -> Sequence[int]:
    return bounds.sizes or (bounds.limits.max_rows,)


def backend_of(handle: Handle) -> str:
    """Return Triton's name of the runtime that serves a model."""
    found = (name for name in BACKENDS if handle.engine.startswith(name))
    return next(found, "onnxruntime")


def _facts(handle: Handle) -> dict[str, str]:
    facts = {
        "engine": handle.engine,
        "engine_reason": handle.engine_reason,
        "plan_state": handle.plan_state,
        "batch_reason": handle.batch_reason,
        "warm_reason": handle.warm_reason,
    }
    return {name: value for name, value in facts.items() if value}


def _policy(handle: Handle) -> config.ModelVersionPolicy:
    policy = handle.config.versions
    if policy == "latest":
        return config.ModelVersionPolicy(latest=config.ModelVersionPolicy.Latest(num_versions=1))
    if policy == "all":
        return config.ModelVersionPolicy(all=config.ModelVersionPolicy.All())
    numbers = [int(version) for version in policy]
    return config.ModelVersionPolicy(specific=config.ModelVersionPolicy.Specific(versions=numbers))


def _input(tensor: Tensor, handle: Handle) -> config.ModelInput:
    image = handle.config.format.get(tensor.name)
    return config.ModelInput(
        name=tensor.name,
        data_type=data_type(tensor),
        format="FORMAT_NONE" if image is None else f"FORMAT_{image}",
        dims=_dims(tensor, handle.batched),
        optional=tensor.shared,
    )


def _output(tensor: Tensor, batched: bool) -> config.ModelOutput:
    return config.ModelOutput(
        name=tensor.name, data_type=data_type(tensor), dims=_dims(tensor, batched)
    )


def data_type(tensor: Tensor) -> str:
    """Return the configuration's name of a datatype; it calls BYTES a string."""
    name = datatype_of(tensor.dtype)
    return f"TYPE_{'STRING' if name == 'BYTES' else name}"


def _dims(tensor: Tensor, batched: bool) -> list[int]:
    shape = tensor.shape[1:] if batched and not tensor.shared else tensor.shape
    return [-1 if size is None else size for size in shape]


def statistics(handle: Handle, now: Snapshot) -> oip.ModelStatistics:
    """Write a model's counters as the protocol does: nanoseconds, and milliseconds of the day."""
    return oip.ModelStatistics(
        name=handle.name,
        version=str(handle.version),
        last_inference=int(now.last * 1000),
        inference_count=now.rows,
        execution_count=now.executions,
        inference_stats=oip.InferStatistics(
            success=_duration(now.success),
            fail=_duration(now.fail),
            queue=_duration(now.queue),
            compute_input=_duration(now.gather),
            compute_infer=_duration(now.compute),
            compute_output=_duration(now.encode),
            cache_hit=_duration(now.hit),
            cache_miss=_duration(now.miss),
        ),
        batch_stats=[
            oip.InferBatchStatistics(
                batch_size=size,
                compute_input=_duration(times.gather),
                compute_infer=_duration(times.compute),
            )
            for size, times in now.batches.items()
        ],
    )


def _duration(duration: Duration) -> oip.StatisticDuration:
    return oip.StatisticDuration(count=duration.count, ns=round(duration.seconds * 1e9))
