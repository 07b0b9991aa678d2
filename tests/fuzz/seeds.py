"""Where fuzzing begins: real requests, and operations in the order in which they mostly come."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping

import numpy as np
from inferd.oip.v2.inference_pb2 import ModelInferRequest

from tests.server.serving import infer_request

NUMBERS = np.array([[1, 2], [3, 4]], np.float32)
TEXT = np.array([[b"a"], [b"bc"]], object)
FLAGS = np.array([True, False])
# Needless bytes in a tag or a length, a group, an unknown field, a length beyond the end.
UNUSUAL = (
    b"\xba\x00\x01x", b"\x3a\x81\x80\x00x", b"\x3a\x81" + b"\x80" * 8 + b"\x00x", b"\x4b\x4c",
    b"\x78" + b"\xff" * 9 + b"\x01", b"\x3a\x7f",
)  # fmt: skip
# How many bytes of the message to change, and each one's place and new value: none, one after
# the id, one in the id of a model with a short name, which then is no text.
EDITS = (b"\0", b"\1\0\x14\7", b"\1\0\5\xff")
OPERATIONS = ("blocks", "ring", "lane", "arena", "link")


def messages() -> Iterator[bytes]:
    """Yield requests that `front` answers, raw and typed, and some with parameters."""
    inputs = {"m": {"m": NUMBERS}, "t": {"t": TEXT}, "b": {"b": FLAGS}}
    inputs["all"] = {"m": NUMBERS, "t": TEXT, "b": FLAGS}
    for name, tensors in inputs.items():
        yield infer_request(name, tensors, ident="id").SerializeToString()
        yield infer_request(name, tensors, version="1").SerializeToString()
        typed = infer_request(name, tensors, typed=True, outputs=tuple(tensors))
        typed.parameters["priority"].int64_param = 3
        yield typed.SerializeToString()
    shared = ModelInferRequest(model_name="m")
    given = shared.inputs.add(name="m", datatype="FP32", shape=[1, 2])
    given.parameters["shared_memory_region"].string_param = "r"
    given.parameters["shared_memory_byte_size"].int64_param = 8
    shared.outputs.add(name="m").parameters["classification"].int64_param = 1
    yield shared.SerializeToString()


def seeds() -> Mapping[str, list[bytes]]:
    """Return the first inputs of every target."""
    found = {name: operations(name) for name in OPERATIONS}
    found["parsing"] = [*messages(), *UNUSUAL, *(m + odd for m in messages() for odd in UNUSUAL)]
    found["repeating"] = [edits + message for message in messages() for edits in EDITS]
    found["requests"] = found["repeating"]
    return found


def operations(name: str) -> list[bytes]:
    """Return random operations, the same every time."""
    generator = random.Random(name)
    return [generator.randbytes(60) for _ in range(8)]
