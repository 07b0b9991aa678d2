"""What the bytes of a model file say that ONNX Runtime does not tell, without unpacking them.

Names are searched for as they are encoded, in ONNX files (protobuf) and in ORT files (flatbuffers).
What only looks like a name counts as one, so that each question is asked such that this is safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

# Operators that run a part of the graph as often as values say.
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
# Operators that look into text; all others move it, or compare it as a whole.
TEXT_OPERATORS = (
    "RegexFullMatch",
    "StringConcat",
    "StringNormalizer",
    "StringSplit",
    "TfIdfVectorizer",
    "Unique",
)
PLAIN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Whose operators are all known here."""
ORT_SUFFIX = ".ort"
_OP_TYPE = b"\x22"
"""Tag of NodeProto.op_type (field 4, with a length)."""
_LOCATION = b"\x0a\x08location\x12"
"""How an entry of TensorProto.external_data begins that names a file."""
_OPSET_IMPORT, _DOMAIN = 8, 1
VARINT, FIXED64, LENGTH_DELIMITED, FIXED32 = 0, 1, 2, 5
"""How the content of a field is encoded."""


class Field(NamedTuple):
    """A field of a protobuf message, and where it is."""

    number: int
    kind: int
    start: int
    """Of its tag."""
    begin: int
    """Of its content."""
    end: int


def has_operator(content: bytes, name: str) -> bool:
    """Tell whether a node of the model has this operator, in whatever part of it."""
    text = name.encode()
    in_onnx = _OP_TYPE + bytes([len(text)]) + text
    in_ort = len(text).to_bytes(4, "little") + text + b"\0"
    return in_onnx in content or in_ort in content


def is_steady(content: bytes) -> bool:
    """Tell whether the time of a run depends on shapes alone: there is no control flow."""
    return not any(has_operator(content, name) for name in CONTROL_FLOW)


def needs_text(content: bytes) -> bool:
    """Tell whether the model may look into the text that it is given, instead of moving it."""
    if any(has_operator(content, name) for name in TEXT_OPERATORS):
        return True
    try:
        return not domains(content) <= PLAIN_DOMAINS
    except ValueError:
        # An ORT file, most likely, whose domains are not read here.
        return True


def external_names(content: bytes) -> frozenset[str]:
    """Return the names of files in which the model says that weights are."""
    names = set()
    at = content.find(_LOCATION)
    while at >= 0:
        try:
            length, begin = read_varint(content, at + len(_LOCATION))
            names.add(content[begin : begin + length].decode())
        except ValueError:
            pass
        at = content.find(_LOCATION, at + 1)
    return frozenset(names)


def domains(content: bytes) -> frozenset[str]:
    """Return the domains of operators that an ONNX file says it uses.

    Raises:
        ValueError: it is no ONNX file.
    """
    return frozenset(
        text_of(content, found, _DOMAIN)
        for found in fields(content)
        if found.number == _OPSET_IMPORT and found.kind == LENGTH_DELIMITED
    )


def fields(message: bytes | memoryview, begin: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yield the fields of a message. Source: "Encoding" in the documentation of protobuf.

    Raises:
        ValueError: it is not one.
    """
    at, end = begin, len(message) if end is None else end
    while at < end:
        start = at
        tag, at = read_varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            _, after = read_varint(message, at)
        elif kind == LENGTH_DELIMITED:
            length, at = read_varint(message, at)
            after = at + length
        elif kind in (FIXED64, FIXED32):
            after = at + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError("no wire type that is in use")
        if after > end:
            raise ValueError("it ends too early")
        yield Field(tag >> 3, kind, start, at, after)
        at = after


def text_of(message: bytes, inside: Field, number: int) -> str:
    """Return a field of text of an inner message; "" where it has none.

    Raises:
        ValueError: it is no message, or no text.
    """
    for found in fields(message, inside.begin, inside.end):
        if found.number == number and found.kind == LENGTH_DELIMITED:
            return message[found.begin : found.end].decode()
    return ""


def read_varint(message: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and where it ends.

    Raises:
        ValueError: there is none.
    """
    value = shift = 0
    while at < len(message) and shift <= 63:
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("no number")
