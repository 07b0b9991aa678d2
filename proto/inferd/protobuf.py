"""Protobuf's encoding, for what is written without its classes because that is quicker.

Source: protobuf.dev, Encoding.
"""

from __future__ import annotations

VARINT, FIXED64, LENGTH, START, END, FIXED32 = range(6)
"""Wire types; text, bytes and messages have a length."""


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


def field_tag(number: int, wire_type: int = LENGTH) -> bytes:
    """Encode what stands before each value of a field."""
    return varint(number << 3 | wire_type)


def delimited(number: int, content: bytes) -> bytes:
    """Encode a field that has a length."""
    return field_tag(number) + varint(len(content)) + content
