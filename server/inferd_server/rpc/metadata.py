"""Methods that tell: liveness, readiness, metadata, configuration, statistics, index, status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2 import model_config_pb2 as config
from inferd.tensors import datatype_of
from inferd.v1 import server_pb2
from inferd_engines.engine import Tensor

from inferd_server.errors import InferdError, ModelNotFound
from inferd_server.models.config import (
    ControlConfig,
    ModelConfig,
    QueuePolicyConfig,
    SequenceConfig,
    latest_of,
)
from inferd_server.models.entries import ModelEntry, Models, State
from inferd_server.models.version import Handle, ModelBounds
from inferd_server.monitoring.statistics import Duration, Snapshot
from inferd_server.rpc.control import check_repository
from inferd_server.sequences.controls import ControlKind

NAME = "inferd"
EXTENSIONS = (
    "classification", "model_configuration", "model_repository",
    "model_repository(unload_dependents)", "parameters", "schedule_policy", "sequence",
    "statistics", "system_shared_memory", "binary_tensor_data", "logging",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServerState:
    """What the server as a whole can tell of itself."""

    version: str
    transport: str
    uptime: Callable[[], float]
    """Seconds."""
    ready: Callable[[], bool]
    draining: Callable[[], bool]
    live: Callable[[], bool]
    """False once the server cannot repair itself."""
    sick: Callable[[], Mapping[tuple[str, int], str]]
    """Model versions that are loaded and do not answer, and why."""


Counters = Callable[[Sequence[Handle]], Sequence[Snapshot]]
"""Returns what each of these versions did; blocks where other processes have to be asked."""


def own_counters(handles: Sequence[Handle]) -> list[Snapshot]:
    """Return what was counted in this process."""
    return [handle.statistics.read() for handle in handles]


class Inspection:
    """Answers questions; changes nothing."""

    def __init__(self, models: Models, state: ServerState, counters: Counters) -> None:
        self._models = models
        self._state = state
        self._counters = counters

    def server_live(self, _: oip.ServerLiveRequest) -> oip.ServerLiveResponse:
        """Say whether the server works, or will again without being started anew."""
        return oip.ServerLiveResponse(live=self._state.live())

    def server_ready(self, _: oip.ServerReadyRequest) -> oip.ServerReadyResponse:
        """Say whether requests should be sent here."""
        return oip.ServerReadyResponse(ready=self._state.ready())

    def model_ready(self, request: oip.ModelReadyRequest) -> oip.ModelReadyResponse:
        """Say whether a model serves; a model that is not known is not ready."""
        try:
            entry = self._models.choose(request.name, request.version)
        except InferdError:
            return oip.ModelReadyResponse(ready=False)
        return oip.ModelReadyResponse(ready=standing(entry, self._state.sick())[0] is State.READY)

    def server_metadata(self, _: oip.ServerMetadataRequest) -> oip.ServerMetadataResponse:
        """Name the server and the extensions of the protocol that it has."""
        return oip.ServerMetadataResponse(
            name=NAME, version=self._state.version, extensions=EXTENSIONS
        )

    def model_metadata(self, request: oip.ModelMetadataRequest) -> oip.ModelMetadataResponse:
        """Describe a model's tensors."""
        handle = self._models.resolve(request.name, request.version)
        ready = [e.version for e in self._entries(request.name) if e.state is State.READY]
        return model_metadata(handle, ready)

    def model_config(self, request: oip.ModelConfigRequest) -> oip.ModelConfigResponse:
        """Describe how a model is served."""
        handle = self._models.resolve(request.name, request.version)
        return oip.ModelConfigResponse(config=model_config(handle))

    def model_statistics(self, request: oip.ModelStatisticsRequest) -> oip.ModelStatisticsResponse:
        """Return the counters of one version, of all versions of a model, or of everything."""
        if request.name and request.version:
            handles = [self._models.resolve(request.name, request.version)]
        else:
            handles = self._handles(request.name)
        counted = zip(handles, self._counters(handles), strict=True)
        return oip.ModelStatisticsResponse(
            model_stats=[model_statistics(handle, now) for handle, now in counted]
        )

    def repository_index(self, request: oip.RepositoryIndexRequest) -> oip.RepositoryIndexResponse:
        """List every version of every model with its state."""
        check_repository(request.repository_name)
        sick = self._state.sick()
        found = [(entry, *standing(entry, sick)) for entry in self._models.entries()]
        return oip.RepositoryIndexResponse(
            models=[
                oip.RepositoryIndexResponse.ModelIndex(
                    name=entry.name,
                    version=str(entry.version or ""),
                    state=state.value,
                    reason=reason,
                )
                for entry, state, reason in found
                if state is State.READY or not request.ready
            ]
        )

    def status(self, _: server_pb2.StatusRequest) -> server_pb2.StatusResponse:
        """Tell which engine serves each model, and why."""
        sick = self._state.sick()
        return server_pb2.StatusResponse(
            version=self._state.version,
            transport=self._state.transport,
            uptime_seconds=self._state.uptime(),
            ready=self._state.ready(),
            draining=self._state.draining(),
            models=[_status(entry, *standing(entry, sick)) for entry in self._models.entries()],
        )

    def _entries(self, name: str) -> list[ModelEntry]:
        return [entry for entry in self._models.entries() if entry.name == name or not name]

    def _handles(self, name: str) -> list[Handle]:
        entries = self._entries(name)
        if name and not entries:
            raise ModelNotFound(f"model {name!r} is not known")
        return [entry.handle for entry in entries if entry.handle is not None]


def standing(entry: ModelEntry, sick: Mapping[tuple[str, int], str]) -> tuple[State, str]:
    """Return the state of a version, and why it is not ready: not loaded, or it does not answer.

    The reason of a ready one is how far it could be tried before it was. Every method that tells
    of a version's state tells this.
    """
    why = sick.get((entry.name, entry.version), "") if entry.state is State.READY else ""
    warm_reason = "" if entry.handle is None else entry.handle.warm_reason
    return (State.UNAVAILABLE, why) if why else (entry.state, entry.reason or warm_reason)


def _status(entry: ModelEntry, state: State, reason: str) -> server_pb2.ModelVersionStatus:
    status = server_pb2.ModelVersionStatus(
        name=entry.name,
        version=str(entry.version or ""),
        state=state.value,
        reason=reason,
    )
    if entry.handle is not None:
        status.engine = entry.handle.engine
        status.engine_reason = entry.handle.engine_reason
        status.max_batch_size = entry.handle.bounds.max_batch_size
        status.batch_reason = entry.handle.batch_reason
        status.instances = entry.handle.config.instances
        status.plan_state = entry.handle.plan_state
    return status


BACKENDS = {"tensorrt": "tensorrt_plan", "onnxruntime": "onnxruntime_onnx"}
"""By what the name of an engine begins with, the platform: names of Triton's."""


CONTROLS: Mapping[ControlKind, str] = {
    "start": "CONTROL_SEQUENCE_START",
    "ready": "CONTROL_SEQUENCE_READY",
    "end": "CONTROL_SEQUENCE_END",
    "correlation_id": "CONTROL_SEQUENCE_CORRID",
}


def model_metadata(handle: Handle, versions: list[int]) -> oip.ModelMetadataResponse:
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
        answer.dynamic_batching.CopyFrom(_dynamic_batching(handle.config, bounds))
    for name, value in _facts(handle).items():
        answer.parameters[name].string_value = value
    return answer


def _dynamic_batching(asked: ModelConfig, bounds: ModelBounds) -> config.ModelDynamicBatching:
    answer = config.ModelDynamicBatching(
        max_queue_delay_microseconds=round(bounds.max_queue_delay * 1e6),
        preferred_batch_size=_preferred(bounds),
        default_queue_policy=_queue_policy(asked.queue_policy, bounds.max_queue_rows),
    )
    if asked.priority_levels > 1:
        answer.priority_levels = asked.priority_levels
        answer.default_priority_level = asked.usual_priority
    for priority in {*asked.priority_queue_policy, *asked.priority_queue_rows}:
        rows = asked.priority_queue_rows.get(priority, bounds.max_queue_rows)
        policy = _queue_policy(asked.policy_of(priority), rows)
        answer.priority_queue_policy[priority].CopyFrom(policy)
    return answer


def _queue_policy(asked: QueuePolicyConfig, rows: int) -> config.ModelQueuePolicy:
    delays = asked.timeout_action == "delay"
    return config.ModelQueuePolicy(
        timeout_action=config.ModelQueuePolicy.DELAY if delays else config.ModelQueuePolicy.REJECT,
        default_timeout_microseconds=round((asked.default_timeout_ms or 0) * 1000),
        allow_timeout_override=asked.allow_timeout_override,
        max_queue_size=min(rows, 2**32 - 1),
    )


def _sequences(asked: SequenceConfig, bounds: ModelBounds) -> config.ModelSequenceBatching:
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


def _preferred(bounds: ModelBounds) -> Sequence[int]:
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
    if policy == "all":
        return config.ModelVersionPolicy(all=config.ModelVersionPolicy.All())
    if isinstance(policy, str):
        latest = config.ModelVersionPolicy.Latest(num_versions=latest_of(policy))
        return config.ModelVersionPolicy(latest=latest)
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


def model_statistics(handle: Handle, now: Snapshot) -> oip.ModelStatistics:
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
