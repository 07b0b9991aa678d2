"""The number of fields in the bytes of a message, bounded before anything is made of them.

Two bytes are a field, and the generated class makes hundreds of bytes of some: what a message
may cost is decided by its fields, not by its size. They are counted one by one, and counting
ends at the bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from inferd_server.errors import InvalidInput

MAX_FIELDS = 1 << 16
"""Fields of one message, those of the messages in it included."""
MAX_OUTER_FIELDS = 4096
"""Fields of a ModelInferRequest itself: its inputs, outputs, parameters and raw contents."""
UNCOUNTED_BYTES = 1 << 16
"""A message up to this size has too few fields for the count to be worth its time."""

VARINT, FIXED64, LENGTH, START, END, FIXED32 = range(6)
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
