"""Messages of the protocol to the plain values of `information`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from inferd.oip.v2 import inference_pb2, model_config_pb2
from inferd.v1 import server_pb2

from inferd_client.information import (
    BatchStatistics,
    ModelConfig,
    ModelMetadata,
    ModelState,
    ModelStatistics,
    ModelVersionStatus,
    Phase,
    ServerMetadata,
    ServerStatus,
    TensorInfo,
)


def server_metadata(message: inference_pb2.ServerMetadataResponse) -> ServerMetadata:
    """Read who the server is."""
    return ServerMetadata(message.name, message.version, tuple(message.extensions))


def model_metadata(message: inference_pb2.ModelMetadataResponse) -> ModelMetadata:
    """Read a model's signature."""
    return ModelMetadata(
        name=message.name,
        versions=tuple(message.versions),
        platform=message.platform,
        inputs=_tensors(message.inputs),
        outputs=_tensors(message.outputs),
    )


def _tensors(
    messages: Iterable[inference_pb2.ModelMetadataResponse.TensorMetadata],
) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(each.name, each.datatype, _shape(each.shape)) for each in messages)


def _shape(dims: Sequence[int]) -> tuple[int | None, ...]:
    return tuple(None if size < 0 else size for size in dims)


def model_config(message: inference_pb2.ModelConfigResponse) -> ModelConfig:
    """Read how a model is served."""
    config = message.config
    batching = config.dynamic_batching
    return ModelConfig(
        name=config.name,
        platform=config.platform,
        backend=config.backend,
        max_batch_size=config.max_batch_size,
        inputs=_config_tensors(config.input),
        outputs=_config_tensors(config.output),
        preferred_batch_sizes=tuple(batching.preferred_batch_size),
        max_queue_delay_us=batching.max_queue_delay_microseconds,
        max_queue_size=batching.default_queue_policy.max_queue_size,
        instances=sum(group.count for group in config.instance_group),
        parameters={name: value.string_value for name, value in config.parameters.items()},
    )


def _config_tensors(
    messages: Iterable[model_config_pb2.ModelInput | model_config_pb2.ModelOutput],
) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(
            each.name,
            _config_datatype(each.data_type),
            _shape(each.dims),
            isinstance(each, model_config_pb2.ModelInput) and each.optional,
        )
        for each in messages
    )


def _config_datatype(value: model_config_pb2.DataType) -> str:
    name = model_config_pb2.DataType.Name(value).removeprefix("TYPE_")
    return "BYTES" if name == "STRING" else name


def index(message: inference_pb2.RepositoryIndexResponse) -> tuple[ModelState, ...]:
    """Read the repository's index."""
    return tuple(
        ModelState(each.name, each.version, each.state, each.reason) for each in message.models
    )


def statistics(message: inference_pb2.ModelStatisticsResponse) -> tuple[ModelStatistics, ...]:
    """Read the counters of every model version that was asked for."""
    return tuple(_model_statistics(each) for each in message.model_stats)


def _model_statistics(message: inference_pb2.ModelStatistics) -> ModelStatistics:
    phases = message.inference_stats
    return ModelStatistics(
        name=message.name,
        version=message.version,
        last_inference_ms=message.last_inference,
        inference_count=message.inference_count,
        execution_count=message.execution_count,
        success=_phase(phases.success),
        fail=_phase(phases.fail),
        queue=_phase(phases.queue),
        compute_input=_phase(phases.compute_input),
        compute_infer=_phase(phases.compute_infer),
        compute_output=_phase(phases.compute_output),
        batches=tuple(_batch(each) for each in message.batch_stats),
    )


def _batch(message: inference_pb2.InferBatchStatistics) -> BatchStatistics:
    return BatchStatistics(
        batch_size=message.batch_size,
        compute_input=_phase(message.compute_input),
        compute_infer=_phase(message.compute_infer),
        compute_output=_phase(message.compute_output),
    )


def _phase(message: inference_pb2.StatisticDuration) -> Phase:
    return Phase(message.count, message.ns)


def status(message: server_pb2.StatusResponse) -> ServerStatus:
    """Read the state of the server."""
    return ServerStatus(
        version=message.version,
        transport=message.transport,
        uptime_seconds=message.uptime_seconds,
        ready=message.ready,
        draining=message.draining,
        models=tuple(_version_status(each) for each in message.models),
    )


def _version_status(message: server_pb2.ModelVersionStatus) -> ModelVersionStatus:
    return ModelVersionStatus(
        name=message.name,
        version=message.version,
        state=message.state,
        reason=message.reason,
        engine=message.engine,
        engine_reason=message.engine_reason,
        max_batch_size=message.max_batch_size,
        batch_reason=message.batch_reason,
        instances=message.instances,
        plan_state=message.plan_state,
    )
