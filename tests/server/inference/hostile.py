"""Messages that are small once compressed, and dear for who makes objects of all their fields."""

from __future__ import annotations

from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.protobuf import varint

SIZE = 4 << 20
"""Bytes of each; 4 to 8 KB in gzip."""
RAW, INPUTS, OUTPUTS, PARAMETERS, CONTENTS = 7, 5, 6, 4, 5


def field(number: int, kind: int, body: bytes) -> bytes:
    """Return one field."""
    return varint(number << 3 | kind) + body


def part(number: int, body: bytes) -> bytes:
    """Return a field with a length."""
    return field(number, 2, varint(len(body)) + body)


def filled(unit: bytes) -> bytes:
    """Repeat something up to the size."""
    return unit * (SIZE // len(unit))


def of_input(body: bytes) -> bytes:
    """Return a request of one input."""
    return part(1, b"simple") + part(INPUTS, part(1, b"INPUT0") + part(2, b"INT32") + body)


TOO_MANY_FIELDS = {
    "empty raw contents": filled(part(RAW, b"")),
    "raw contents of one byte": filled(part(RAW, b"x")),
    "unknown numbers": filled(field(15, 0, b"\0")),
    "unknown parts": filled(part(15, b"")),
    "unknown groups": filled(field(9, 3, b"") + field(9, 4, b"")),
    "numbers written too long": filled(field(15, 0, b"\x80" * 9 + b"\0")),
    "tags written too long": filled(b"\xba\x80\x80\x80\0" + b"\0"),
    "unknown fields of eight bytes": filled(field(15, 1, bytes(8))),
    "empty inputs": filled(part(INPUTS, b"")),
    "inputs with a name": filled(part(INPUTS, part(1, b"INPUT0"))),
    "empty outputs": filled(part(OUTPUTS, b"")),
    "empty parameters": filled(part(PARAMETERS, b"")),
    "a name again and again": filled(part(1, b"")),
    "parameters of an input": of_input(filled(part(4, b""))),
    "parameters of an output": part(OUTPUTS, filled(part(2, b""))),
    "contents again and again": of_input(filled(part(CONTENTS, b""))),
    "empty strings": of_input(part(CONTENTS, filled(part(8, b"")))),
    "numbers that are not packed": of_input(part(CONTENTS, filled(field(2, 0, b"\0")))),
    "a shape that is not packed": of_input(filled(field(3, 0, b"\x01"))),
    "a packed shape": of_input(part(3, filled(b"\x01"))),
    "unknown fields of an input": of_input(filled(field(15, 0, b"\0"))),
    "unknown fields in a parameter": part(PARAMETERS, part(2, filled(field(15, 0, b"\0")))),
    "unknown behind an unusual tag": b"\xfa\x80\0\0" + filled(part(INPUTS, b"")),
}
"""Refused because of the number of their fields."""

SENSELESS = {
    "raw contents of four MiB for an input of 64 bytes": (
        of_input(part(3, b"\x01\x10")) + part(RAW, bytes(SIZE))
    ),
    "packed numbers": of_input(part(3, b"\x01\x10") + part(CONTENTS, part(2, filled(b"\0")))),
    "packed booleans": of_input(part(3, b"\x01\x10") + part(CONTENTS, part(1, filled(b"\1")))),
    "a name of four MiB": part(1, filled(b"n")),
    "an input with a name of four MiB": part(1, b"simple") + part(INPUTS, part(1, filled(b"n"))),
    "a string parameter of four MiB": (
        part(1, b"simple") + part(PARAMETERS, part(1, b"p") + part(2, part(3, filled(b"v"))))
    ),
    "4000 raw contents": part(1, b"simple") + 4000 * part(RAW, bytes(1000)),
    "4000 inputs": part(1, b"simple") + 4000 * part(INPUTS, part(1, bytes(1000))),
}
"""Refused for what they say."""


def fitting(rows: int = 1) -> bytes:
    """Return the bytes of a request that is a good one but for its unknown fields."""
    request = ModelInferRequest(model_name="simple")
    for name in ("INPUT0", "INPUT1"):
        request.inputs.add(name=name, datatype="INT32", shape=(rows, 16))
        request.raw_input_contents.append(bytes(64 * rows))
    return request.SerializeToString()
