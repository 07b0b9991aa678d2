"""The bytes of a ModelInferRequest: tensor payloads stay where they are, as views.

The generated class parses everything but `raw_input_contents`, which it would copy twice.
Where the bytes are in any way unusual it parses all of them, so that it alone decides
what is a valid message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.tensors import Buffer

from inferd_server.errors import InvalidInput
from inferd_server.front.field_count import (
    FIXED_SIZES,
    LENGTH,
    MAX_OUTER_FIELDS,
    VARINT,
    check_fields,
    known_fields,
    read_varint,
    too_many,
)

RAW_INPUT = ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
RAW_INPUT_TAG = RAW_INPUT << 3 | LENGTH
REQUEST = known_fields(ModelInferRequest)
LONGEST_TAG = 5
"""Bytes of a varint that is read here; the generated class knows more about longer ones."""
UNREADABLE = (DecodeError, UnicodeDecodeError)
"""What protobuf raises where bytes are no message; the second where it runs in Python."""
ID_TAG = bytes([ModelInferResponse.ID_FIELD_NUMBER << 3 | LENGTH])


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
    for field in fields:
        if field.tag == RAW_INPUT_TAG:
            kept.append(view[mark : field.start])
            raw.append(view[field.begin : field.end])
            mark = field.end
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


def varint(value: int) -> bytes:
    """Encode an unsigned varint."""
    if value < 128:
        return bytes((value,))
    if value < 16384:
        return bytes((value & 127 | 128, value >> 7))
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


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
