"""What a server tells of itself and its models, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from inferd.tensors import DATATYPES


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """An input or output: `shape` has None for a dimension of any size.

    `optional` is told by the configuration alone: an input that may be left out.
    """

    name: str
    datatype: str
    shape: tuple[int | None, ...]
    optional: bool = False

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype that arrays of it have; BYTES is object.

        Raises:
            KeyError: the server named a datatype that the protocol does not have.
        """
        return DATATYPES[self.datatype]


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Name and version of the server, and the protocol extensions that it has."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """Signature of a model, batch dimension included, and the versions that serve."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """How a model is served; shapes lack the batch dimension where `max_batch_size` > 0.

    `instances` is the number of engines, 0 where the server does not say;
    `max_queue_delay_us` is in microseconds.
    """

    name: str
    platform: str
    backend: str
    max_batch_size: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    preferred_batch_sizes: tuple[int, ...]
    max_queue_delay_us: int
    max_queue_size: int
    instances: int
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ModelState:
    """One entry of the repository's index; `reason` says why it is not READY."""

    name: str
    version: str
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Phase:
    """How often something happened, and how many nanoseconds it took in total."""

    count: int
    ns: int

    @property
    def mean_seconds(self) -> float:
        """Mean duration in seconds; 0 when it never happened."""
        return self.ns / self.count / 1e9 if self.count else 0.0


@dataclass(frozen=True, slots=True)
class BatchStatistics:
    """Time spent on batches of one size."""

    batch_size: int
    compute_input: Phase
    compute_infer: Phase
    compute_output: Phase


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """Counters of one model version since it was loaded.

    `inference_count` counts rows, `execution_count` batches, `last_inference_ms`
    milliseconds since the epoch.
    """

    name: str
    version: str
    last_inference_ms: int
    inference_count: int
    execution_count: int
    success: Phase
    fail: Phase
    queue: Phase
    compute_input: Phase
    compute_infer: Phase
    compute_output: Phase
    batches: tuple[BatchStatistics, ...]


@dataclass(frozen=True, slots=True)
class ModelVersionStatus:
    """Which engine serves a model version, and why; see `inferd.v1.ModelVersionStatus`."""

    name: str
    version: str
    state: str
    reason: str
    engine: str
    engine_reason: str
    max_batch_size: int
    batch_reason: str
    instances: int
    plan_state: str


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """State of the server and of every model version."""

    version: str
    transport: str
    uptime_seconds: float
    ready: bool
    draining: bool
    models: tuple[ModelVersionStatus, ...]
