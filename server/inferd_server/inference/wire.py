"""The bytes of a ModelInferRequest: tensor payloads stay where they are, as views.

The generated class parses everything but `raw_input_contents`, which it would copy twice.
Where the bytes are in any way unusual it parses all of them, so that it alone decides
what is a valid message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.protobuf import END, FIXED32, FIXED64, LENGTH, START, VARINT, field_tag, varint
from inferd.tensors import Buffer

from inferd_server.errors import InvalidInput

MAX_FIELDS = 1 << 16
"""Fields of one message, those of the messages in it included."""
MAX_OUTER_FIELDS = 4096
"""Fields of a ModelInferRequest itself: its inputs, outputs, parameters and raw contents."""
UNCOUNTED_BYTES = 1 << 16
"""A message up to this size has too few fields for the count to be worth its time."""

FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
ELEMENTS = "inference.InferTensorContents"
"""The message whose packed numbers are tensors: as many as the message has bytes."""
NOT_PACKED = (FieldDescriptor.CPPTYPE_MESSAGE, FieldDescriptor.CPPTYPE_STRING)


@dataclass(slots=True)
class Known:
    """What is known of one message: by field number, the messages and the numbers in it."""

    messages: dict[int, Known] = field(default_factory=dict)
    packed: set[int] = field(default_factory=set)
    """Repeated numbers of which each counts as a field."""


def known_fields(message_class: type[Message]) -> Known:
    """Return what is known of a message and, under their numbers, of those in it."""
    return _known(cast(Descriptor, message_class.DESCRIPTOR), {})


def _known(descriptor: Descriptor, seen: dict[str, Known]) -> Known:
    if descriptor.full_name in seen:
        return seen[descriptor.full_name]
    known = seen[descriptor.full_name] = Known()
    for item in descriptor.fields:
        if item.message_type is not None:
            known.messages[item.number] = _known(item.message_type, seen)
        elif item.is_repeated and item.cpp_type not in NOT_PACKED:
            known.packed.add(item.number)
    if descriptor.full_name == ELEMENTS:
        known.packed.clear()
    return known


def check_fields(message: bytes, known: Known) -> None:
    """Count the fields of a message and of the messages in it, and stop at the bound.

    Where the bytes are wrong, what follows is not counted: the generated class ends there, too.

    Raises:
        InvalidInput: there are too many.
    """
    if len(message) <= UNCOUNTED_BYTES:
        return
    left = MAX_FIELDS
    pending = [(0, len(message), known)]
    while pending:
        left = _count(message, pending, left)


def _count(message: bytes, pending: list[tuple[int, int, Known]], left: int) -> int:
    """Count the fields of the last pending part, and add the messages in it; return the rest."""
    offset, end, known = pending.pop()
    while offset < end:
        if left <= 0:
            raise too_many(MAX_FIELDS)
        left -= 1
        tag, offset = read_varint(message, offset, end)
        start, offset = _value(message, offset, end, tag & 7)
        if offset > end:
            break
        if tag & 7 != LENGTH:
            continue
        if tag >> 3 in known.packed:
            left -= offset - start
        elif tag >> 3 in known.messages:
            pending.append((start, offset, known.messages[tag >> 3]))
    if left < 0:
        raise too_many(MAX_FIELDS)
    return left


def _value(message: bytes, offset: int, end: int, kind: int) -> tuple[int, int]:
    """Return where the value of a field begins and ends; past the end if it is none."""
    if kind == LENGTH:
        length, start = read_varint(message, offset, end)
        return start, start + length
    if kind == VARINT:
        return offset, read_varint(message, offset, end)[1]
    if kind in (START, END):
        # What is between them is counted like all the rest.
        return offset, offset
    return offset, offset + FIXED_SIZES.get(kind, end)


def read_varint(message: bytes, offset: int, end: int, longest: int = 10) -> tuple[int, int]:
    """Read a varint; one that is too long or not all there yields 0 and an offset past the end."""
    value = 0
    for shift in range(0, 7 * longest, 7):
        if offset >= end:
            break
        byte = message[offset]
        offset += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, offset
    return 0, end + 1


def too_many(limit: int) -> InvalidInput:
    """Return the sentence for a message of too many fields."""
    return InvalidInput(
        f"the message has more than {limit} fields; tensors of many strings travel in "
        "raw_input_contents, which is one field for each",
        reason="MESSAGE_FIELDS",
    )


ID_TAG = field_tag(ModelInferResponse.ID_FIELD_NUMBER)
RAW_INPUT = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
RAW_INPUT_TAG = RAW_INPUT << 3 | LENGTH
REQUEST = known_fields(ModelInferRequest)
LONGEST_TAG = 5
"""Bytes of a varint that is read here; the generated class knows more about longer ones."""
UNREADABLE = (DecodeError, UnicodeDecodeError)
"""What protobuf raises where bytes are no message; the second where it runs in Python."""


def parse(message: bytes) -> tuple[ModelInferRequest, Sequence[Buffer]]:
    """Return the request without its raw contents, and these as views of `message`.

    Raises:
        InvalidInput: the bytes are not a ModelInferRequest, or have more fields than one needs.
    """
    payloads = find_payloads(message)
    try:
        if payloads is None:
            return _parse_whole(message)
        header, raw = payloads
        check_fields(header, REQUEST)
        return ModelInferRequest.FromString(header), raw
    except UNREADABLE as error:
        raise InvalidInput(f"the message is not a ModelInferRequest: {error}") from error


def _parse_whole(message: bytes) -> tuple[ModelInferRequest, Sequence[Buffer]]:
    check_fields(message, REQUEST)
    whole = ModelInferRequest.FromString(message)
    raw = whole.raw_input_contents
    if len(raw) + len(whole.inputs) + len(whole.outputs) + len(whole.parameters) > MAX_OUTER_FIELDS:
        raise too_many(MAX_OUTER_FIELDS)
    copies = list(raw)
    whole.ClearField("raw_input_contents")
    return whole, copies


def find_payloads(message: bytes) -> tuple[bytes, list[memoryview]] | None:
    """Split a message into all other fields, and views of its raw_input_contents.

    None where the walk met anything that it would rather leave to the generated class.

    Raises:
        InvalidInput: it has too many fields.
    """
    fields = walk(message)
    if fields is None:
        return None
    view = memoryview(message)
    kept: list[memoryview] = []
    raw: list[memoryview] = []
    mark = 0
    for found in fields:
        if found.tag == RAW_INPUT_TAG:
            kept.append(view[mark : found.start])
            raw.append(view[found.begin : found.end])
            mark = found.end
    kept.append(view[mark:])
    return (bytes(kept[0]) if len(kept) == 1 else b"".join(kept)), raw


class Field(NamedTuple):
    """A field of a message: its tag, and where the field, its value and both end."""

    tag: int
    start: int
    begin: int
    end: int


def walk(message: bytes) -> list[Field] | None:
    """List the fields of a message; None if anything about them is unusual or wrong.

    Raises:
        InvalidInput: there are too many.
    """
    fields: list[Field] = []
    offset, size = 0, len(message)
    while offset < size:
        start = offset
        tag, offset = read_varint(message, offset, size, LONGEST_TAG)
        begin = offset
        kind = tag & 7
        if kind == LENGTH:
            length, begin = read_varint(message, offset, size, LONGEST_TAG)
            offset = begin + length
        elif kind == VARINT:
            _, offset = read_varint(message, offset, size, LONGEST_TAG)
        elif kind in FIXED_SIZES:
            offset += FIXED_SIZES[kind]
        else:
            return None
        if tag < 8 or offset > size or offset <= start:
            return None
        if len(fields) == MAX_OUTER_FIELDS:
            raise too_many(MAX_OUTER_FIELDS)
        fields.append(Field(tag, start, begin, offset))
    return fields


def identity_field(identity: str) -> bytes:
    """Encode an id as the field of a response; one that is empty needs none."""
    text = identity.encode()
    return ID_TAG + varint(len(text)) + text if text else b""


def is_text(data: bytes) -> bool:
    """Tell whether bytes are UTF-8, which the generated class demands of every string."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
