"""Validation of a request against its model: everything refused is refused here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from inferd.oip.v2.inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest
from inferd.tensors import BYTES, CONTENTS_FIELDS, DATATYPES, Buffer, datatype_of
from inferd_engines.engine import Signature, Tensor

from inferd_server.errors import InvalidInput
from inferd_server.models.config import ModelConfig

REGION = "shared_memory_region"
REGION_SIZE = "shared_memory_byte_size"
REGION_OFFSET = "shared_memory_offset"
CLASSIFICATION = "classification"
TIMEOUT = "timeout"
"""Microseconds that a request may take."""
PRIORITY = "priority"
"""1 is the highest; 0, and what the model does not have, the model's default."""


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
    """Seconds from its arrival until it is answered with an error; None: as the call lasts."""
    level: int = 0
    """Priority; 0 is the highest."""
    delay: float | None = None
    """Seconds from its arrival until it waits behind all others; None: it never does."""


def urgency(parameters: Mapping[str, InferParameter], config: ModelConfig) -> Urgency:
    """Read what a request says of its timeout and priority.

    A priority that the model does not have is passed over, as Triton does it.

    Args:
        parameters: of the request.
        config: of its model.

    Raises:
        InvalidInput: a parameter is negative or of the wrong kind.
    """
    microseconds = whole_number(parameters, TIMEOUT, "the request")
    priority = whole_number(parameters, PRIORITY, "the request") or 0
    if not 0 < priority <= config.priority_levels:
        priority = config.usual_priority
    policy = config.policy_of(priority)
    seconds = policy.timeout(microseconds / 1e6 if microseconds else None)
    if policy.timeout_action == "delay":
        return Urgency(None, priority - 1, seconds)
    return Urgency(seconds, priority - 1)


def switch(parameters: Mapping[str, InferParameter], name: str) -> bool | None:
    """Return a parameter of the request that must be true or false; None when absent.

    Raises:
        InvalidInput: it is neither.
    """
    if name not in parameters:
        return None
    value = parameters[name]
    if value.WhichOneof("parameter_choice") != "bool_param":
        raise InvalidInput(f"parameter {name!r} must be true or false")
    return value.bool_param


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


MAX_BYTES = 2**31
MAX_RANK = 32
"""A protobuf message, and so a tensor in it, ends below 2 GiB; numpy below 64 dimensions."""
WIDTHS: Mapping[str, type[np.generic]] = {
    "bool_contents": np.bool_,
    "int_contents": np.int32,
    "int64_contents": np.int64,
    "uint_contents": np.uint32,
    "uint64_contents": np.uint64,
    "fp32_contents": np.float32,
    "fp64_contents": np.float64,
}
"""What the elements of typed contents are, by their field; those of bytes_contents are objects."""


@dataclass(frozen=True, slots=True)
class Input:
    """One checked input and where its elements are."""

    tensor: Tensor
    shape: tuple[int, ...]
    source: Buffer | InferTensorContents | RegionRange

    @property
    def elements(self) -> int:
        """How many elements the shape holds."""
        return math.prod(self.shape)

    @property
    def left_out(self) -> bool:
        """True if the model's own value stands in for one that was not given."""
        return self.tensor.shared and self.source is self.tensor.default


@dataclass(frozen=True, slots=True)
class Admitted:
    """A checked request: inputs in the order of the signature."""

    inputs: tuple[Input, ...]
    rows: int


def admit(
    request: ModelInferRequest, raw: Sequence[Buffer], signature: Signature, max_batch_size: int
) -> Admitted:
    """Check names, datatypes, shapes and sources against a model.

    Args:
        request: the parsed message, without its raw contents.
        raw: its raw contents.
        signature: of the model.
        max_batch_size: 0 for a model without a batch dimension.

    Raises:
        InvalidInput: a sentence that names the input, what it is and what was expected.
    """
    sources = _sources(request, raw)
    given: dict[str, Input] = {}
    known = {tensor.name: tensor for tensor in signature.inputs}
    for tensor, source in zip(request.inputs, sources, strict=True):
        if tensor.name not in known:
            raise InvalidInput(f"unknown input {tensor.name!r}; {_takes(request, signature)}")
        if tensor.name in given:
            raise InvalidInput(f"input {tensor.name!r} is given twice")
        expected = known[tensor.name]
        _check_datatype(tensor, expected)
        given[tensor.name] = Input(expected, _check_shape(tensor, expected), source)
    for wanted in signature.inputs:
        if wanted.name not in given:
            if wanted.default is None:
                takes = _takes(request, signature)
                raise InvalidInput(f"input {wanted.name!r} is missing; {takes}")
            given[wanted.name] = Input(wanted, own_shape(wanted), wanted.default)
    inputs = tuple(given[tensor.name] for tensor in signature.inputs)
    _check_axes(inputs, batched=max_batch_size > 0)
    return Admitted(inputs, _rows(inputs, max_batch_size))


def _sources(
    request: ModelInferRequest, raw: Sequence[Buffer]
) -> list[Buffer | InferTensorContents | RegionRange]:
    """Pair every input with its elements: a region, the next raw entry, or its contents."""
    left = iter(raw)
    sources: list[Buffer | InferTensorContents | RegionRange] = []
    wanted = sum(REGION not in tensor.parameters for tensor in request.inputs)
    if raw and len(raw) != wanted:
        raise InvalidInput(
            f"raw_input_contents has {len(raw)} entries for {wanted} inputs outside shared memory"
        )
    for tensor in request.inputs:
        # Some clients send an empty message beside raw contents.
        filled = tensor.HasField("contents") and bool(tensor.contents.ListFields())
        region = region_range(tensor.parameters, f"input {tensor.name!r}")
        if filled and (raw or region):
            raise InvalidInput(
                f"input {tensor.name!r} has typed contents beside raw contents or shared memory"
            )
        sources.append(region or (next(left) if raw else tensor.contents))
    return sources


def _check_datatype(tensor: ModelInferRequest.InferInputTensor, expected: Tensor) -> None:
    wanted = datatype_of(expected.dtype)
    if tensor.datatype != wanted:
        known = "" if tensor.datatype in DATATYPES else ", which is no datatype of the protocol"
        raise InvalidInput(
            f"input {tensor.name!r} has datatype {tensor.datatype!r}{known}; {wanted} was expected"
        )


def _check_shape(tensor: ModelInferRequest.InferInputTensor, expected: Tensor) -> tuple[int, ...]:
    wanted = shape_text(expected.shape)
    said = f"input {tensor.name!r} has shape {list(tensor.shape[:MAX_RANK])}"
    if len(tensor.shape) != len(expected.shape):
        raise InvalidInput(
            f"{said}, {len(tensor.shape)} dimensions; {len(expected.shape)} were expected: {wanted}"
        )
    shape = tuple(tensor.shape)
    for axis, (size, fixed) in enumerate(zip(shape, expected.shape, strict=True)):
        if size < 0:
            raise InvalidInput(f"{said}; dimension {axis} is negative; {wanted} was expected")
        if fixed is not None and size != fixed:
            raise InvalidInput(f"{said}; dimension {axis} must be {fixed}: {wanted}")
    # Zero elements in one dimension must not hide an absurd size in another.
    if math.prod(max(1, size) for size in shape) * expected.dtype.itemsize > MAX_BYTES:
        raise InvalidInput(f"{said}, which is more than a message can hold")
    return shape


def _check_axes(inputs: Sequence[Input], *, batched: bool) -> None:
    """Refuse dimensions of one name and several sizes; that of the batch has words of its own."""
    seen: dict[str, tuple[Input, int]] = {}
    for item in inputs:
        for axis, name in enumerate(item.tensor.axes):
            if not name or (batched and axis == 0):
                continue
            other, first = seen.setdefault(name, (item, axis))
            if other.shape[first] != item.shape[axis]:
                raise InvalidInput(
                    f"inputs disagree on dimension {name!r}, which must be equal: "
                    f"{_where(other, first)}, {_where(item, axis)}"
                )


def _where(item: Input, axis: int) -> str:
    """Say what size a dimension of an input has."""
    return f"{item.tensor.name!r} has {item.shape[axis]} in dimension {axis} of {list(item.shape)}"


def _rows(inputs: Sequence[Input], max_batch_size: int) -> int:
    if not max_batch_size:
        return 1
    rows = inputs[0].shape[0]
    for other in inputs[1:]:
        if not other.tensor.shared and other.shape[0] != rows:
            raise InvalidInput(
                f"inputs disagree on the batch size: {inputs[0].tensor.name!r} has {rows} rows, "
                f"{other.tensor.name!r} has {other.shape[0]}"
            )
    if rows == 0:
        raise InvalidInput(
            f"the batch is empty: input {inputs[0].tensor.name!r} has 0 rows; "
            "at least 1 was expected"
        )
    if rows > max_batch_size:
        raise InvalidInput(
            f"the batch of {rows} rows is above the model's maximum of {max_batch_size}; send it "
            f"in parts (inferd_client does with split=True, inferd infer with --split), or set "
            f"max_batch_size: {rows} in model.yaml"
        )
    return rows


def payload_bytes(item: Input, size: int) -> int:
    """Check the size of a raw payload against the shape, and return it.

    Raises:
        InvalidInput: the payload is shorter or longer than the shape says.
    """
    if item.tensor.dtype == DATATYPES[BYTES]:
        return size
    wanted = item.elements * item.tensor.dtype.itemsize
    if size != wanted:
        raise InvalidInput(
            f"input {item.tensor.name!r} has {size} bytes; {wanted} were expected for "
            f"{datatype_of(item.tensor.dtype)} {list(item.shape)}"
        )
    return size


def contents_array(item: Input, contents: InferTensorContents) -> np.ndarray[Any, Any]:
    """Return typed contents as a flat array of the input's dtype.

    Raises:
        InvalidInput: the wrong field is filled, or elements are missing, left over or
            out of the datatype's range.
    """
    name, datatype = item.tensor.name, datatype_of(item.tensor.dtype)
    if datatype not in CONTENTS_FIELDS:
        raise InvalidInput(f"input {name!r} is {datatype}, which travels as raw contents only")
    field = CONTENTS_FIELDS[datatype]
    strange = [other.name for other, _ in contents.ListFields() if other.name != field]
    if strange:
        raise InvalidInput(f"input {name!r} has {strange[0]}; {field} was expected for {datatype}")
    values = getattr(contents, field)
    if len(values) != item.elements:
        raise InvalidInput(
            f"input {name!r} has {len(values)} elements in {field}; {item.elements} were "
            f"expected for shape {list(item.shape)}"
        )
    if field not in WIDTHS:
        return np.fromiter(values, item.tensor.dtype, item.elements)
    # The container's own memory at once, which is of the field's width.
    found = np.array(values, WIDTHS[field])
    if not in_range(found, item.tensor.dtype):
        raise InvalidInput(f"input {name!r} has an element outside {datatype}")
    return found.astype(item.tensor.dtype, copy=False)


def in_range(array: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> bool:
    """True if a datatype of whole numbers, or any other one, holds every element of an array."""
    if dtype.kind not in "iu" or dtype == array.dtype or not array.size:
        return True
    limits = np.iinfo(dtype)
    return bool(limits.min <= array.min() and array.max() <= limits.max)


def shape_text(shape: Sequence[int | None]) -> str:
    """Write a shape with -1 for free dimensions, as the protocol does."""
    return str([-1 if size is None else size for size in shape])


def own_shape(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of the value that an input has where it is left out."""
    return tuple(size or 0 for size in tensor.shape)


def _takes(request: ModelInferRequest, signature: Signature) -> str:
    inputs = ", ".join(
        f"{tensor.name} ({datatype_of(tensor.dtype)} {shape_text(tensor.shape)}"
        f"{', optional' if tensor.shared else ''})"
        for tensor in signature.inputs
    )
    return f"model {request.model_name!r} takes {inputs}"


def requested_outputs(
    request: ModelInferRequest, signature: Signature
) -> Mapping[str, ModelInferRequest.InferRequestedOutputTensor | None]:
    """Return the outputs to send, in the order asked for; all of them when none is named.

    One that is named twice is sent once.

    Raises:
        InvalidInput: an output is unknown, or named twice with other parameters.
    """
    if not request.outputs:
        return {tensor.name: None for tensor in signature.outputs}
    known = [tensor.name for tensor in signature.outputs]
    wanted: dict[str, ModelInferRequest.InferRequestedOutputTensor | None] = {}
    for output in request.outputs:
        if output.name not in known:
            raise InvalidInput(
                f"unknown output {output.name!r}; model {request.model_name!r} gives "
                f"{', '.join(known)}"
            )
        if wanted.get(output.name, output) != output:
            raise InvalidInput(f"output {output.name!r} is requested twice, with other parameters")
        wanted[output.name] = output
    return wanted
