"""What the bytes of a model file say that ONNX Runtime does not tell, without unpacking them.

Names are searched for as they are encoded, in ONNX files (protobuf) and in ORT files (flatbuffers).
What only looks like a name counts as one, so that each question is asked such that this is safe.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

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


LONG = 4096
"""Bytes from which on a field is looked into, or left out where it is a tensor's."""
STEP = 1 << 20
"""Bytes that are searched in one go."""
Message: TypeAlias = str
INNER: Mapping[Message, Mapping[int, Message]] = {
    "ModelProto": {7: "GraphProto", 25: "FunctionProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 10: "TensorProto", 6: "GraphProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}  # fmt: skip
"""Messages that tensors are in, by the number of their field. Source: onnx.proto of ONNX 1.19."""


def outline(content: bytes) -> bytes:
    """Return an ONNX file without the elements of large tensors, to be searched; others whole.

    A search holds Python's lock: those of all 100 MB of a model kept callers waiting for a second.
    """
    whole, parts, mark = memoryview(content), list[memoryview](), 0
    try:
        for begin, end in elements(content, 0, len(content), "ModelProto"):
            parts.append(whole[mark:begin])
            mark = end
    except (ValueError, RecursionError):
        # Damaged, an ORT file, or nested beyond reason.
        return content
    return b"".join([*parts, whole[mark:]])


def elements(content: bytes, begin: int, end: int, kind: Message) -> Iterator[tuple[int, int]]:
    """Yield where the elements of large tensors begin and end in a part that is such a message.

    Raises:
        ValueError: it is not.
    """
    inner = INNER[kind]
    for found in fields(content, begin, end):
        if found.kind != LENGTH_DELIMITED or found.end - found.begin < LONG:
            continue
        if found.number in inner:
            yield from elements(content, found.begin, found.end, inner[found.number])
        elif kind == "TensorProto":
            yield found.begin, found.end


def find(content: bytes, text: bytes, at: int = 0) -> int:
    """Return where a text begins, from a place on, or -1; other threads run meanwhile."""
    for start in range(at, len(content), STEP):
        place = content.find(text, start, start + STEP + len(text) - 1)
        if place >= 0:
            return place
    return -1


def has_operator(searched: bytes, name: str) -> bool:
    """Tell whether a node of a model has this operator, in whatever part of its `outline`."""
    text = name.encode()
    in_onnx = _OP_TYPE + bytes([len(text)]) + text
    in_ort = len(text).to_bytes(4, "little") + text + b"\0"
    return find(searched, in_onnx) >= 0 or find(searched, in_ort) >= 0


def is_steady(content: bytes) -> bool:
    """Tell whether the time of a run depends on shapes alone: there is no control flow."""
    searched = outline(content)
    return not any(has_operator(searched, name) for name in CONTROL_FLOW)


def needs_text(content: bytes) -> bool:
    """Tell whether the model may look into the text that it is given, instead of moving it."""
    searched = outline(content)
    if any(has_operator(searched, name) for name in TEXT_OPERATORS):
        return True
    try:
        return not domains(content) <= PLAIN_DOMAINS
    except ValueError:
        # An ORT file, most likely, whose domains are not read here.
        return True


def external_names(content: bytes) -> frozenset[str]:
    """Return the names of files in which the model says that weights are."""
    names, searched = set(), outline(content)
    at = find(searched, _LOCATION)
    while at >= 0:
        try:
            length, begin = read_varint(searched, at + len(_LOCATION))
            names.add(searched[begin : begin + length].decode())
        except ValueError:
            pass
        at = find(searched, _LOCATION, at + 1)
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
