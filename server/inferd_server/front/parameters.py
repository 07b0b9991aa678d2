"""The parameters of tensors that Triton's extensions define."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inferd.oip.v2.inference_pb2 import InferParameter

from inferd_server.errors import InvalidInput

REGION = "shared_memory_region"
REGION_SIZE = "shared_memory_byte_size"
REGION_OFFSET = "shared_memory_offset"
CLASSIFICATION = "classification"


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
