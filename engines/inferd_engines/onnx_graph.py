"""The graph of an ONNX file, read without its weights.

Read by the wire format of protobuf, and not by the package `onnx`: that one copies every weight
into memory, twice the size of a model for a look at its nodes. Here the bytes are
looked at where they lie, and only tensors of at most SMALL elements are decoded.

Source of the field numbers: onnx.proto in onnx/onnx.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import ml_dtypes
import numpy as np

from inferd_engines import onnx_file
from inferd_engines.onnx_file import VARINT, read_varint

SMALL = 64
"""Elements of a tensor up to which its values are read."""
DEEPEST = 32
"""Graphs within graphs; more is no model."""

# The element types of TensorProto whose raw data numpy can view.
DTYPES: Mapping[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float16),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    16: np.dtype(ml_dtypes.bfloat16),
}
FLOAT16S = (10, 16)
STRING = 8
FLOATING = (1, 10, 11, 16)

Value: TypeAlias = "int | float | bytes"
Attribute: TypeAlias = "Value | tuple[Value, ...] | Constant"


class FieldValue(NamedTuple):
    """One field of a message: its number, and a whole number or its bytes."""

    number: int
    value: int | memoryview


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that lies in the file: its shape, and its elements where they are few."""

    shape: tuple[int, ...]
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """What a graph is given or gives: the rank where the file tells it, and the element type."""

    name: str
    rank: int | None
    kind: int


@dataclass(frozen=True, slots=True)
class Node:
    """One operation: `graphs` are the parts of the model that it may run."""

    name: str
    operator: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    graphs: tuple[Graph, ...] = ()


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order of the file, which is one that they can run in."""

    inputs: tuple[Input, ...] = ()
    outputs: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    constants: Mapping[str, Constant] = field(default_factory=dict)
    results: tuple[Input, ...] = ()
    """The outputs, with their types."""


@dataclass(frozen=True, slots=True)
class Model:
    """The main graph, the functions that its nodes may call, and the version of ONNX' operators."""

    graph: Graph = field(default_factory=Graph)
    functions: Mapping[tuple[str, str], Graph] = field(default_factory=dict)
    """By domain and name."""
    opset: int = 0
    producer: str = ""
    """What wrote the file, as it calls itself."""


def read_model(content: bytes) -> Model | None:
    """Read the bytes of a model file; None where they are no whole ONNX file."""
    try:
        return _model(memoryview(content))
    except (ValueError, TypeError, IndexError, struct.error):
        # TypeError: a number where a message belongs.
        return None


def fields(message: memoryview) -> Iterator[FieldValue]:
    """Yield the fields of a message with what they hold.

    Raises:
        ValueError: it is not one.
    """
    for found in onnx_file.fields(message):
        if found.kind == VARINT:
            yield FieldValue(found.number, read_varint(message, found.begin)[0])
        else:
            yield FieldValue(found.number, message[found.begin : found.end])


def _model(message: memoryview) -> Model:
    graph, functions, opset, producer = Graph(), {}, 0, ""
    for number, value in fields(message):
        if number == 7:
            graph = _graph(_bytes(value), 0)
        elif number == 2:
            producer = _text(value)
        elif number == 25:
            key, function = _function(_bytes(value))
            functions[key] = function
        elif number == 8:
            domain, version = _opset(_bytes(value))
            opset = version if domain in ("", "ai.onnx") else opset
    return Model(graph, functions, opset, producer)


def _opset(message: memoryview) -> tuple[str, int]:
    domain, version = "", 0
    for number, value in fields(message):
        if number == 1:
            domain = _text(value)
        elif number == 2:
            version = _number(value)
    return domain, version


def _function(message: memoryview) -> tuple[tuple[str, str], Graph]:
    name = domain = ""
    inputs, outputs, nodes = [], [], []
    for number, value in fields(message):
        if number == 1:
            name = _text(value)
        elif number == 4:
            inputs.append(Input(_text(value), None, 0))
        elif number == 5:
            outputs.append(_text(value))
        elif number == 7:
            nodes.append(_node(_bytes(value), 1))
        elif number == 10:
            domain = _text(value)
    return (domain, name), Graph(tuple(inputs), tuple(outputs), tuple(nodes))


def _graph(message: memoryview, depth: int) -> Graph:
    if depth > DEEPEST:
        raise ValueError("too deep")
    nodes, inputs, outputs = [], [], []
    constants: dict[str, Constant] = {}
    for number, value in fields(message):
        if number == 1:
            nodes.append(_node(_bytes(value), depth))
        elif number == 5:
            name, constant = _tensor(_bytes(value))
            constants[name] = constant
        elif number == 11:
            inputs.append(_input(_bytes(value)))
        elif number == 12:
            outputs.append(_input(_bytes(value)))
    # Old files name their weights among the inputs, too.
    given = tuple(one for one in inputs if one.name not in constants)
    names = tuple(one.name for one in outputs)
    return Graph(given, names, tuple(nodes), constants, tuple(outputs))


def _node(message: memoryview, depth: int) -> Node:
    names: dict[int, str] = {3: "", 4: "", 7: ""}
    inputs, outputs = [], []
    attributes: dict[str, Attribute] = {}
    graphs: list[Graph] = []
    for number, value in fields(message):
        if number == 1:
            inputs.append(_text(value))
        elif number == 2:
            outputs.append(_text(value))
        elif number == 5:
            name, attribute = _attribute(_bytes(value), depth, graphs)
            attributes[name] = attribute
        elif number in names:
            names[number] = _text(value)
    domain = "" if names[7] == "ai.onnx" else names[7]
    ends = tuple(inputs), tuple(outputs)
    return Node(names[3], names[4], domain, *ends, attributes, tuple(graphs))


def _attribute(message: memoryview, depth: int, graphs: list[Graph]) -> tuple[str, Attribute]:
    """Return name and value of an attribute; graphs are added to those of the node."""
    name, single = "", None
    several: list[Value] = []
    for number, value in fields(message):
        if number == 1:
            name = _text(value)
        elif number in SINGLE:
            single = SINGLE[number](value)
        elif number in (6, 11):
            graphs.append(_graph(_bytes(value), depth + 1))
        elif number in SEVERAL:
            several += SEVERAL[number](value)
    return name, tuple(several) if single is None else single


def _input(message: memoryview) -> Input:
    name, rank, kind = "", None, 0
    for number, value in fields(message):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for what, held in fields(_bytes(value)):
                if what == 1:
                    rank, kind = _tensor_type(_bytes(held))
    return Input(name, rank, kind)


def _tensor_type(message: memoryview) -> tuple[int | None, int]:
    rank, kind = None, 0
    for number, value in fields(message):
        if number == 1:
            kind = _number(value)
        elif number == 2:
            rank = sum(1 for dimension in fields(_bytes(value)) if dimension.number == 1)
    return rank, kind


def _tensor(message: memoryview) -> tuple[str, Constant]:
    """Return name and content of a tensor."""
    name, kind = "", 0
    shape: list[int] = []
    parts: list[FieldValue] = []
    for found in fields(message):
        if found.number == 1:
            shape += _numbers(found.value)
        elif found.number == 2:
            kind = _number(found.value)
        elif found.number == 8:
            name = _text(found.value)
        else:
            parts.append(found)
    small = math.prod(shape) <= SMALL
    return name, Constant(tuple(shape), tuple(_elements(kind, parts)) if small else ())


def _elements(kind: int, parts: Sequence[FieldValue]) -> list[Value]:
    """Return the elements of a tensor, wherever they stand; none of one that lies elsewhere."""
    elements: list[Value] = []
    for number, value in parts:
        if number == 9 and kind in DTYPES:
            elements += np.frombuffer(_bytes(value), DTYPES[kind]).astype(_plain(kind)).tolist()
        elif number == 6 and kind == STRING:
            elements.append(bytes(_bytes(value)))
        elif number in (4, 10):
            elements += _floats(value, "<f" if number == 4 else "<d")
        elif number in (5, 7, 11):
            elements += _numbers(value)
    if kind in FLOAT16S and any(part.number == 5 for part in parts):
        halves = np.array(elements, np.uint16).view(DTYPES[kind])
        elements = halves.astype(np.float64).tolist()
    return elements


def _plain(kind: int) -> np.dtype[Any]:
    return np.dtype(np.float64) if kind in FLOATING else DTYPES[kind]


def _floats(value: int | memoryview, form: str) -> list[Value]:
    return [number for (number,) in struct.iter_unpack(form, _bytes(value))]


def _numbers(value: int | memoryview) -> list[int]:
    """Return whole numbers, one or many in a row."""
    if isinstance(value, int):
        return [_signed(value)]
    numbers, offset = [], 0
    while offset < len(value):
        number, offset = read_varint(value, offset)
        numbers.append(_signed(number))
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _number(value: int | memoryview) -> int:
    if isinstance(value, int):
        return value
    raise TypeError("a number was expected")


def _bytes(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise TypeError("a message was expected")
    return value


def _text(value: int | memoryview) -> str:
    return str(_bytes(value), errors="replace")


SINGLE: Mapping[int, Callable[[int | memoryview], Attribute]] = {
    2: lambda value: _floats(value, "<f")[0],
    3: lambda value: _signed(_number(value)),
    4: lambda value: bytes(_bytes(value)),
    5: lambda value: _tensor(_bytes(value))[1],
}
"""Fields of an AttributeProto that hold one value."""
SEVERAL: Mapping[int, Callable[[int | memoryview], Sequence[Value]]] = {
    7: lambda value: _floats(value, "<f"),
    8: _numbers,
    9: lambda value: [bytes(_bytes(value))],
}
"""Those that hold several."""
