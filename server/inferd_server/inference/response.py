"""From a job's output arrays to the bytes of a ModelInferResponse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.protobuf import field_tag, varint
from inferd.tensors import BYTES, DATATYPES, Array, Buffer, datatype_of, encode_bytes
from inferd_engines.engine import Signature

from inferd_server.errors import InvalidInput
from inferd_server.inference.classification import check_classes, classify
from inferd_server.inference.shared_memory import Region, RegionTable
from inferd_server.inference.validation import (
    REGION,
    REGION_OFFSET,
    REGION_SIZE,
    RegionRange,
    class_count,
    region_range,
)
from inferd_server.transport.call import Call

RAW_OUTPUT_TAG = field_tag(ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER)
WITHOUT_CLASSES = {"BOOL", BYTES}
Requested = Mapping[str, ModelInferRequest.InferRequestedOutputTensor | None]


@dataclass(frozen=True, slots=True)
class OutputTarget:
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
) -> list[OutputTarget]:
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
            targets.append(OutputTarget(name))
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
        targets.append(OutputTarget(name, classes, labels.get(name, ()), batched, region, part))
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
    targets: Sequence[OutputTarget],
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


# Up to here a copy of its own is cheaper than a view.
SMALL = 4096


class ResponsePart(NamedTuple):
    """One output of a prebuilt response."""

    target: OutputTarget
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    before: bytes
    """All that stands between the last output's elements and this one's."""


@dataclass(frozen=True, slots=True)
class Unnamed:
    """What is echoed in every response to requests that look alike."""

    model_name: str
    id: str = ""


class AnsweredRequest(Protocol):
    """A request at the moment of its answer."""

    identity: bytes
    """The id as a field of the response, tag and length included; b"" for none."""
    call: Call
    started: float
    """When it arrived, in monotonic seconds."""
    sequence: int
    """Key of the sequence that it is a step of; 0: of none."""


class Responses:
    """Encodes the responses to one form of request. Calls may come from any thread."""

    def __init__(self, model_name: str, version: int, targets: Sequence[OutputTarget]) -> None:
        """Prepare.

        Args:
            model_name: as the callers wrote it.
            version: that serves.
            targets: what to send, in order.
        """
        self._echo = Unnamed(model_name)
        self._version = version
        self.targets = targets
        self.classifies = any(target.classes for target in targets)
        self._known: tuple[ResponsePart, ...] = ()

    def encode(self, request: AnsweredRequest, outputs: Mapping[str, Array]) -> list[Buffer]:
        """Return the parts of a response, the id last; large tensors are views of `outputs`.

        Args:
            request: that is answered.
            outputs: arrays of the request's rows, by name.

        Raises:
            InvalidInput: an output does not fit into its shared memory.
            ResourceExhausted: shared memory has no pages left.
        """
        parts: list[Buffer] = []
        for target, dtype, shape, before in self._known:
            array = outputs[target.name]
            if array.shape != shape or array.dtype != dtype:
                parts = []
                break
            parts.append(before)
            if target.region is not None and target.part is not None:
                target.region.write(tensor_bytes(array), target.part.offset)
            else:
                parts.append(array.tobytes() if array.nbytes <= SMALL else tensor_bytes(array))
        parts = parts or self._make(outputs)
        parts.append(request.identity)
        return parts

    def _make(self, outputs: Mapping[str, Array]) -> list[Buffer]:
        parts = encode_response(self._echo, self._version, self.targets, outputs)
        self._known = prebuilt(self.targets, outputs, parts)
        return parts


def prebuilt(
    targets: Sequence[OutputTarget], outputs: Mapping[str, Array], parts: Sequence[Buffer]
) -> tuple[ResponsePart, ...]:
    """Keep what is the same in every response with such outputs; () if the elements decide.

    Args:
        targets: what was sent.
        outputs: what it was made of.
        parts: of the response: the header, then tag with length, and elements, of each output.
    """
    if any(target.classes or outputs[target.name].dtype.hasobject for target in targets):
        return ()
    header = [parts[0], *[b""] * (len(targets) - 1)]
    return tuple(
        ResponsePart(
            target, outputs[target.name].dtype, outputs[target.name].shape, bytes(first) + tag
        )
        for target, first, tag in zip(targets, header, map(bytes, parts[1::2]), strict=True)
    )
