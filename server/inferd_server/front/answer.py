"""From a job's output arrays to the bytes of a ModelInferResponse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.tensors import BYTES, DATATYPES, Array, Buffer, datatype_of, encode_bytes
from inferd_engines.engine import Signature

from inferd_server.errors import InvalidInput
from inferd_server.front.classification import check_classes, classify
from inferd_server.front.parameters import (
    REGION,
    REGION_OFFSET,
    REGION_SIZE,
    RegionRange,
    class_count,
    region_range,
)
from inferd_server.front.regions import Region, RegionTable
from inferd_server.front.wire import varint

RAW_OUTPUT_TAG = varint(ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER << 3 | 2)
WITHOUT_CLASSES = {"BOOL", BYTES}
Requested = Mapping[str, ModelInferRequest.InferRequestedOutputTensor | None]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one output goes: into the message, or a part of a region; as a tensor or classes."""

    name: str
    classes: int = 0
    labels: Sequence[str] = ()
    batched: bool = False
    """Whether each row is a set of classes."""
    region: Region | None = None
    part: RegionRange | None = None


def plan_outputs(
    requested: Requested,
    signature: Signature,
    labels: Mapping[str, Sequence[str]],
    regions: RegionTable,
    *,
    rows: int = 1,
    batched: bool = False,
) -> list[Target]:
    """Check everything about the outputs that can be checked before the run.

    Args:
        requested: by name; None: nothing is said of it.
        signature: of the model.
        labels: of its classes, by output.
        regions: of shared memory.
        rows: of the request.
        batched: whether the first dimension counts them.

    Raises:
        InvalidInput: a parameter is wrong, or classes are asked of BYTES, or too many.
        RegionNotFound: an output region is unknown.
    """
    known = {tensor.name: tensor for tensor in signature.outputs}
    targets = []
    for name, output in requested.items():
        if output is None or not output.parameters:
            targets.append(Target(name))
            continue
        owner = f"output {name!r}"
        classes = class_count(output.parameters, owner)
        datatype = datatype_of(known[name].dtype)
        if classes and datatype in WITHOUT_CLASSES:
            raise InvalidInput(f"{owner} is {datatype}, which has no classes")
        if classes:
            check_classes(known[name], classes, rows, batched=batched)
        part = region_range(output.parameters, owner)
        region = None if part is None else regions.find(part, owner)
        targets.append(Target(name, classes, labels.get(name, ()), batched, region, part))
    return targets


class Echoed(Protocol):
    """What of a request stands in its response."""

    @property
    def model_name(self) -> str:
        """As the caller wrote it."""

    @property
    def id(self) -> str:
        """As the caller wrote it."""


def encode_response(
    request: Echoed,
    version: int,
    targets: Sequence[Target],
    outputs: Mapping[str, Array],
) -> list[Buffer]:
    """Return the parts of a response; tensors are views of `outputs`.

    Args:
        request: whose name and id are echoed.
        version: that served.
        targets: what to send, in order.
        outputs: arrays of this request's rows, by name.

    Raises:
        InvalidInput: an output does not fit into its shared memory.
    """
    header = ModelInferResponse(
        model_name=request.model_name, model_version=str(version), id=request.id
    )
    parts: list[Buffer] = [b""]
    for target in targets:
        array = outputs[target.name]
        if target.classes:
            array = classify(
                array, target.classes, target.labels, batched=target.batched, name=target.name
            )
        described = header.outputs.add(
            name=target.name, datatype=datatype_of(array.dtype), shape=array.shape
        )
        data = tensor_bytes(array)
        if target.region is not None and target.part is not None:
            _place(described, target.region, target.part, data)
            data = b""
        parts += (RAW_OUTPUT_TAG + varint(len(data)), data)
    parts[0] = header.SerializeToString()
    return parts


def tensor_bytes(array: Array) -> Buffer:
    """Return an array's elements as the protocol writes them."""
    if array.dtype == DATATYPES[BYTES]:
        return encode_bytes(array)
    # A view as bytes, because memoryview knows no bfloat16.
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat.data)


def _place(
    described: ModelInferResponse.InferOutputTensor,
    region: Region,
    part: RegionRange,
    data: Buffer,
) -> None:
    if len(data) > part.byte_size:
        raise InvalidInput(
            f"output {described.name!r} has {len(data)} bytes, and {part.byte_size} are set aside "
            f"in shared memory region {part.region!r}"
        )
    region.write(data, part.offset)
    described.parameters[REGION].string_param = part.region
    described.parameters[REGION_SIZE].int64_param = len(data)
    if part.offset:
        described.parameters[REGION_OFFSET].int64_param = part.offset
