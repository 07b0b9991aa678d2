"""The parameters of requests and tensors that Triton's extensions define."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferd.oip.v2.inference_pb2 import InferParameter

from inferd_server.errors import InvalidInput

REGION = "shared_memory_region"
REGION_SIZE = "shared_memory_byte_size"
REGION_OFFSET = "shared_memory_offset"
CLASSIFICATION = "classification"
TIMEOUT = "timeout"
"""Microseconds that a request may take."""
PRIORITY = "priority"
"""1 is the highest; 0 the model's default."""


@dataclass(frozen=True, slots=True)
class RegionRange:
    """A part of a registered shared memory region."""

    region: str
    offset: int
    byte_size: int


def region_range(parameters: Mapping[str, InferParameter], owner: str) -> RegionRange | None:
    """Read a tensor's place in shared memory; None when it has none.

    Raises:
        InvalidInput: a parameter is missing, negative or of the wrong kind.
    """
    if REGION not in parameters:
        if REGION_SIZE in parameters or REGION_OFFSET in parameters:
            raise InvalidInput(f"{owner} names a size or offset in shared memory and no {REGION}")
        return None
    region = parameters[REGION]
    if region.WhichOneof("parameter_choice") != "string_param":
        raise InvalidInput(f"{owner}: {REGION} must be a string")
    if REGION_SIZE not in parameters:
        raise InvalidInput(f"{owner}: {REGION_SIZE} is missing")
    offset = whole_number(parameters, REGION_OFFSET, owner) or 0
    return RegionRange(
        region.string_param, offset, whole_number(parameters, REGION_SIZE, owner) or 0
    )


def class_count(parameters: Mapping[str, InferParameter], owner: str) -> int:
    """Return how many classes an output should be turned into; 0: leave it a tensor.

    Raises:
        InvalidInput: not a whole number above 0.
    """
    count = whole_number(parameters, CLASSIFICATION, owner)
    if count == 0:
        raise InvalidInput(f"{owner}: {CLASSIFICATION} must be above 0")
    return count or 0


@dataclass(frozen=True, slots=True)
class Urgency:
    """When a request has to be answered, and before which others."""

    timeout: float | None = None
    """Seconds from its arrival; None: as long as the call lasts."""
    level: int = 0
    """Priority; 0 is the highest."""


def urgency(parameters: Mapping[str, InferParameter], levels: int, default: int) -> Urgency:
    """Read what a request says of its timeout and priority.

    Args:
        parameters: of the request.
        levels: priorities of the model; with one, they are passed over as Triton does it.
        default: the priority of requests that name none, from 1.

    Raises:
        InvalidInput: a parameter is negative, of the wrong kind, or beyond the levels.
    """
    if not parameters:
        return Urgency(None, default - 1)
    microseconds = whole_number(parameters, TIMEOUT, "the request")
    priority = whole_number(parameters, PRIORITY, "the request") or default
    if levels == 1:
        priority = 1
    if priority > levels:
        raise InvalidInput(
            f"the request: {PRIORITY} is {priority}; the model has {levels} (priority_levels)"
        )
    return Urgency(microseconds / 1e6 if microseconds else None, priority - 1)


def whole_number(parameters: Mapping[str, InferParameter], name: str, owner: str) -> int | None:
    """Return a parameter that must be 0 or a positive whole number; None when absent.

    Raises:
        InvalidInput: it is something else.
    """
    if name not in parameters:
        return None
    kind = parameters[name].WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise InvalidInput(f"{owner}: {name} must be a whole number")
    value = int(getattr(parameters[name], kind))
    if value < 0:
        raise InvalidInput(f"{owner}: {name} is {value}; 0 or more was expected")
    return value
