"""Writes an admitted request's rows into its slot, once."""

from __future__ import annotations

import math
from typing import Protocol, TypeAlias

import numpy as np
from inferd.oip.v2.inference_pb2 import InferTensorContents, ModelInferRequest
from inferd.tensors import BYTES, DATATYPES, Array, Buffer, decode_bytes
from inferd_engines.engine import RowSpec

from inferd_server.errors import InvalidInput
from inferd_server.inference.response import tensor_bytes
from inferd_server.inference.shared_memory import Region, RegionTable
from inferd_server.inference.validation import (
    Admitted,
    Input,
    RegionRange,
    contents_array,
    payload_bytes,
)
from inferd_server.inference.wire import is_text

OBJECT = DATATYPES[BYTES]
MAX_TEXT_ELEMENTS = 1 << 20
"""Elements of one BYTES input: each becomes an object, and an empty one travels as 4 bytes."""


class Writable(Protocol):
    """Elements of one input, wherever they are."""

    def write(self, target: Array) -> None:
        """Copy them into the slot."""


class Elements:
    """One input's elements in memory: a view of the message, or decoded."""

    def __init__(self, array: Array) -> None:
        self._array = array

    @property
    def nbytes(self) -> int:
        """Bytes of the elements."""
        if self._array.dtype != OBJECT:
            return self._array.nbytes
        return self._array.nbytes + sum(map(len, self._array))

    @property
    def encoded(self) -> Buffer:
        """The elements as they travel in raw contents, whichever way they came."""
        return tensor_bytes(self._array)

    def write(self, target: Array) -> None:
        """Copy the elements into the slot."""
        target[...] = self._array.reshape(target.shape)


class RegionElements:
    """One input's elements in shared memory, read straight into the slot."""

    def __init__(self, region: Region, offset: int, nbytes: int) -> None:
        self.region = region
        self.offset = offset
        self.nbytes = nbytes

    def write(self, target: Array) -> None:
        """Read the elements into the slot."""
        self.read(target.reshape(-1).view(np.uint8).data)

    def read(self, memory: memoryview) -> None:
        """Read the elements into the bytes of a slot.

        Raises:
            InvalidInput: shared memory shrank meanwhile.
        """
        self.region.read_into(memory, self.offset)


class SharedElements:
    """One input's elements, which are the same for all rows of a request."""

    def __init__(self, array: Array, shape: tuple[int, ...], rows: int) -> None:
        self._array = array.reshape(shape)
        self._rows = rows

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, once for each row."""
        return self._array.nbytes * self._rows

    @property
    def encoded(self) -> Buffer:
        """The elements as they travel in raw contents."""
        return tensor_bytes(self._array)

    def write(self, target: Array) -> None:
        """Copy the elements into each row of the slot."""
        target[...] = self._array

    def read(self, memory: memoryview) -> None:
        """Copy the elements into the bytes of a slot's rows."""
        memory[:] = self._array.tobytes() * self._rows


Located: TypeAlias = Elements | RegionElements | SharedElements
Source: TypeAlias = int | RegionElements | SharedElements
"""Where an input's elements are in all requests of one form: the index of a raw payload, a region,
or the model's own value."""


def locate(admitted: Admitted, regions: RegionTable) -> list[Located]:
    """Find every input's elements and check their length.

    Raises:
        InvalidInput: a payload does not fit its shape, or a BYTES payload is damaged or no text.
        RegionNotFound: a shared memory region is unknown.
    """
    return [
        _locate_shared(item, regions, admitted.rows)
        if item.tensor.shared
        else _locate(item, regions)
        for item in admitted.inputs
    ]


def row_specs(admitted: Admitted, batched: bool) -> list[RowSpec]:
    """Return dtype and row shape of every input."""
    return [
        (
            item.tensor.dtype,
            item.shape[1:] if batched and not item.tensor.shared else item.shape,
        )
        for item in admitted.inputs
    ]


class Checked:
    """One input's elements, with what can be told only once they are in the slot."""

    def __init__(self, item: Input, elements: Writable) -> None:
        self._item = item
        self._elements = elements

    def write(self, target: Array) -> None:
        """Copy the elements into the slot.

        Raises:
            InvalidInput: a BOOL has a byte above 1, or shared memory shrank meanwhile.
        """
        self._elements.write(target)
        # Any other byte is undefined behaviour in what reads it as a bool.
        if target.dtype == np.bool_ and (target.view(np.uint8) > 1).any():
            raise InvalidInput(f"input {self._item.tensor.name!r} is BOOL and has a byte above 1")


def _locate(item: Input, regions: RegionTable) -> Located:
    source = item.source
    if isinstance(source, InferTensorContents):
        array = contents_array(item, source)
        return Elements(_text(item, array) if array.dtype == OBJECT else array)
    if isinstance(source, RegionRange):
        return _locate_region(item, source, regions)
    payload_bytes(item, len(source))
    if item.tensor.dtype == OBJECT:
        return Elements(_strings(item, source))
    return Elements(np.frombuffer(source, dtype=np.uint8).view(item.tensor.dtype))


def _locate_shared(item: Input, regions: RegionTable, rows: int) -> SharedElements:
    source = item.source
    if isinstance(source, InferTensorContents):
        array = contents_array(item, source)
    elif isinstance(source, RegionRange):
        region = regions.find(source, f"input {item.tensor.name!r}")
        data = bytearray(payload_bytes(item, source.byte_size))
        region.read_into(memoryview(data), source.offset)
        array = np.frombuffer(data, np.uint8).view(item.tensor.dtype)
    else:
        payload_bytes(item, len(source))
        array = np.frombuffer(source, np.uint8).view(item.tensor.dtype)
    return SharedElements(array, item.shape, rows)


def _locate_region(item: Input, part: RegionRange, regions: RegionTable) -> Located:
    region = regions.find(part, f"input {item.tensor.name!r}")
    nbytes = payload_bytes(item, part.byte_size)
    if item.tensor.dtype != OBJECT:
        return RegionElements(region, part.offset, nbytes)
    data = bytearray(nbytes)
    region.read_into(memoryview(data), part.offset)
    return Elements(_strings(item, data))


def text_elements(request: ModelInferRequest) -> int:
    """Return how many elements of text a request says that it has."""
    return sum(
        math.prod(max(0, size) for size in tensor.shape)
        for tensor in request.inputs
        if tensor.datatype == BYTES
    )


def _strings(item: Input, data: bytes | bytearray | memoryview) -> Array:
    if item.elements > MAX_TEXT_ELEMENTS:
        raise InvalidInput(
            f"input {item.tensor.name!r} has {item.elements} elements of BYTES; at most "
            f"{MAX_TEXT_ELEMENTS} are read"
        )
    try:
        elements = decode_bytes(data, item.elements)
    except ValueError as error:
        raise InvalidInput(f"input {item.tensor.name!r} is not valid BYTES: {error}") from error
    return _text(item, elements)


def _text(item: Input, elements: Array) -> Array:
    """Refuse BYTES that are not UTF-8 where the model cannot take them."""
    for index, element in enumerate(elements if item.tensor.text else ()):
        if not is_text(element):
            raise InvalidInput(f"input {item.tensor.name!r}: element {index} is not UTF-8 text")
    return elements
