"""Replaces ZipMap at the end of a model, which turns an array into dictionaries, by its input.

scikit-learn's converter, and those that follow it, put a ZipMap behind the probabilities of a
classifier unless told otherwise. Its output is a sequence of maps, which the protocol cannot carry;
its input is the same numbers as one array, with a column for each class.
Source of the field numbers: onnx.proto in onnx/onnx.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from inferd_engines.engine import Signature, Tensor
from inferd_engines.onnx_file import (
    LENGTH_DELIMITED,
    Field,
    fields,
    has_operator,
    outline,
    read_varint,
    text_of,
)

ZIPMAP = "ZipMap"
_GRAPH = 7
_NODE, _OUTPUT = 1, 12
_INPUTS, _OUTPUTS, _OP_TYPE, _ATTRIBUTES = 1, 2, 4, 5
_INTS, _STRINGS = 8, 9


@dataclass(frozen=True, slots=True)
class Replaced:
    """A ZipMap that is gone: the output that it made, and the classes of its columns."""

    output: str
    classes: tuple[int | str, ...]


def without_zipmap(content: bytes) -> tuple[bytes, tuple[Replaced, ...]]:
    """Return a model whose outputs are not made by ZipMap any more, and what was replaced.

    The output keeps its name. A ZipMap whose output another node takes stays.
    """
    if not has_operator(outline(content), ZIPMAP):
        return content, ()
    try:
        return _replace(content)
    except ValueError:
        # Not a whole ONNX file, or none of ours to change: ONNX Runtime says what it is.
        return content, ()


def with_columns(signature: Signature, replaced: Sequence[Replaced]) -> Signature:
    """Return a signature in which what replaced a ZipMap has a row and a column for each class.

    The operators before it are of a kind that ONNX Runtime knows no shapes of.
    """
    counts = {one.output: len(one.classes) for one in replaced}

    def described(tensor: Tensor) -> Tensor:
        if tensor.shape or not counts.get(tensor.name):
            return tensor
        return replace(tensor, shape=(None, counts[tensor.name]), axes=("", ""))

    return replace(signature, outputs=tuple(map(described, signature.outputs)))


def _replace(content: bytes) -> tuple[bytes, tuple[Replaced, ...]]:
    (graph,) = [f for f in fields(content) if f.number == _GRAPH and f.kind == LENGTH_DELIMITED]
    inside = [f for f in fields(content, graph.begin, graph.end) if f.kind == LENGTH_DELIMITED]
    nodes = [f for f in inside if f.number == _NODE]
    outputs = {text_of(content, f, 1): f for f in inside if f.number == _OUTPUT}
    taken = {name for node in nodes for name in _names(content, node, _INPUTS)}
    edits: list[tuple[Field, bytes]] = []
    found = []
    for node in nodes:
        made = _names(content, node, _OUTPUTS)
        if text_of(content, node, _OP_TYPE) != ZIPMAP or len(made) != 1:
            continue
        if made[0] in outputs and made[0] not in taken:
            source = _names(content, node, _INPUTS)[0]
            edits.append((node, _message(_NODE, _identity(source, made[0]))))
            # Without a type, which ONNX Runtime then finds out.
            name = _message(_OUTPUT, _message(1, made[0].encode()))
            edits.append((outputs[made[0]], name))
            found.append(Replaced(made[0], _classes(content, node)))
    changed = _edited(content, graph, edits)
    whole = content[: graph.start] + _message(_GRAPH, changed) + content[graph.end :]
    return whole, tuple(found)


def _edited(content: bytes, graph: Field, edits: list[tuple[Field, bytes]]) -> bytes:
    parts, at = [], graph.begin
    for place, replacement in sorted(edits):
        parts += [content[at : place.start], replacement]
        at = place.end
    return b"".join([*parts, content[at : graph.end]])


def _identity(source: str, target: str) -> bytes:
    ends = _message(_INPUTS, source.encode()) + _message(_OUTPUTS, target.encode())
    return ends + _message(_OP_TYPE, b"Identity")


def _names(content: bytes, node: Field, number: int) -> list[str]:
    return [
        content[f.begin : f.end].decode()
        for f in fields(content, node.begin, node.end)
        if f.number == number
    ]


def _classes(content: bytes, node: Field) -> tuple[int | str, ...]:
    """Return the labels of a ZipMap's columns: numbers or text."""
    classes: list[int | str] = []
    for attribute in fields(content, node.begin, node.end):
        if attribute.number != _ATTRIBUTES:
            continue
        for part in fields(content, attribute.begin, attribute.end):
            if part.number == _STRINGS:
                classes.append(content[part.begin : part.end].decode())
            elif part.number == _INTS:
                classes += _numbers(content, part)
    return tuple(classes)


def _numbers(content: bytes, part: Field) -> list[int]:
    """Return whole numbers: one, or many in a row."""
    numbers, at = [], part.begin
    while at < part.end:
        number, at = read_varint(content, at)
        numbers.append(number - (1 << 64) if number >> 63 else number)
    return numbers


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | LENGTH_DELIMITED) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
