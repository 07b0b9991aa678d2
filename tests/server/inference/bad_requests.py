"""Requests that must be refused: each with its code and words that the sentence must hold."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from inferd.oip.v2.inference_pb2 import InferParameter, ModelInferRequest

from tests.server.inference.served import simple
from tests.server.serving import infer_request, rows

INVALID = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND = grpc.StatusCode.NOT_FOUND


@dataclass(frozen=True)
class Bad:
    """A request, and how it must be refused."""

    name: str
    request: ModelInferRequest
    words: tuple[str, ...]
    code: grpc.StatusCode = INVALID


def changed(request: ModelInferRequest, change: Callable[[ModelInferRequest], Any]) -> Any:
    change(request)
    return request


def tensor(
    model: str, datatype: str, shape: list[int], raw: bytes | None = None, **contents: list[Any]
) -> ModelInferRequest:
    """Return a request with one input, INPUT0, as odd as asked for."""
    request = ModelInferRequest(model_name=model)
    given = request.inputs.add(name="INPUT0", datatype=datatype, shape=shape)
    for field, values in contents.items():
        getattr(given.contents, field).extend(values)
    if raw is not None:
        request.raw_input_contents.append(raw)
    return request


def parameter(where: str, name: str, **value: Any) -> ModelInferRequest:
    """Return a request of rows_FP32 with one parameter at its input or output."""
    return parameters(where, **{name: InferParameter(**value)})


def parameters(where: str, model: str = "rows_FP32", **values: InferParameter) -> ModelInferRequest:
    request = infer_request(model, rows(1.0), outputs=("OUTPUT0",))
    target = request.inputs[0] if where == "input" else request.outputs[0]
    for name, value in values.items():
        target.parameters[name].CopyFrom(value)
    if where == "input" and "shared_memory_region" in values:
        del request.raw_input_contents[:]
    return request


def text(value: str) -> InferParameter:
    return InferParameter(string_param=value)


def number(value: int) -> InferParameter:
    return InferParameter(int64_param=value)


def string(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


FP32_ROW = bytes(16)
HUGE = 2**62
I32 = np.zeros((1, 16), dtype=np.int32)

NAMES = [
    Bad(
        "unknown input",
        infer_request("simple", {"NOPE": I32}),
        ("'NOPE'", "INPUT0 (INT32 [-1, 16])", "INPUT1"),
    ),
    Bad("missing input", simple(INPUT1=None), ("'INPUT1'", "missing", "INT32 [-1, 16]")),
    Bad("no input at all", ModelInferRequest(model_name="simple"), ("'INPUT0'", "missing")),
    Bad("empty message", ModelInferRequest(), ("model ''", "not known"), NOT_FOUND),
    Bad(
        "duplicate input",
        changed(simple(), lambda r: setattr(r.inputs[1], "name", "INPUT0")),
        ("'INPUT0'", "twice"),
    ),
    Bad("very long name", infer_request("simple", {"N" * 100_000: I32}), ("unknown input 'NNN",)),
    Bad("very long model", infer_request("M" * 100_000, {}), ("model 'MMM",), NOT_FOUND),
    Bad("unknown model", infer_request("nope", {}), ("'nope'", "simple"), NOT_FOUND),
    *(
        Bad(f"version {version}", r, ("'scaled'", repr(version), "1, 3"), NOT_FOUND)
        for version in ("7", "9" * 30)
        for r in [infer_request("scaled", rows(1.0), version=version)]
    ),
    *(
        Bad(f"version {version}", r, ("'scaled'", repr(version), "is no version"))
        for version in ("xyz", "-1", "0", "01", "01x", " 1")
        for r in [infer_request("scaled", rows(1.0), version=version)]
    ),
    Bad(
        "unknown output",
        infer_request("rows_FP32", rows(1.0), outputs=("NOPE",)),
        ("'NOPE'", "OUTPUT0"),
    ),
    Bad(
        "output requested twice",
        changed(
            infer_request("rows_FP32", rows(1.0), outputs=("OUTPUT0", "OUTPUT0")),
            lambda r: setattr(r.outputs[0].parameters["classification"], "int64_param", 1),
        ),
        ("'OUTPUT0'", "twice"),
    ),
]

SHAPES = [
    Bad("lower rank", tensor("rows_FP32", "FP32", [4], FP32_ROW), ("[4]", "1 dim", "[-1, 4]")),
    Bad("higher rank", tensor("rows_FP32", "FP32", [1, 4, 1], FP32_ROW), ("3 dim", "[-1, 4]")),
    Bad("no shape", tensor("rows_FP32", "FP32", [], FP32_ROW), ("[]", "0 dimensions")),
    Bad("thousands of dimensions", tensor("rows_FP32", "FP32", [1] * 5000, b""), ("5000 dim",)),
    Bad("wrong size", tensor("rows_FP32", "FP32", [1, 5], bytes(20)), ("dimension 1", "be 4")),
    Bad("negative", tensor("rows_FP32", "FP32", [-1, 4], FP32_ROW), ("[-1, 4]", "0 is negative")),
    Bad("most negative", tensor("free", "FP32", [1, -(2**63)], b""), ("dimension 1 is negative",)),
    Bad("overflow", tensor("free", "FP32", [HUGE, HUGE], b""), ("more than a message can hold",)),
    Bad(
        "overflow hidden by a 0",
        tensor("free_anywhere", "FP32", [HUGE, HUGE, 0], b""),
        ("more than a message can hold",),
    ),
    Bad("product of 2^64", tensor("free", "FP32", [2**31, 2**33], b""), ("more than a message",)),
    Bad("many strings", tensor("strings", "BYTES", [2**40, 2], b""), ("more than a message",)),
    Bad("empty batch", tensor("rows_FP32", "FP32", [0, 4], b""), ("batch is empty", "'INPUT0'")),
    Bad("batch too large", infer_request("rows_FP32", rows(*range(33))), ("33 rows", "of 32")),
    Bad(
        "batch sizes disagree",
        simple(INPUT1=np.zeros((2, 16), dtype=np.int32)),
        ("disagree", "'INPUT0' has 1 rows", "'INPUT1' has 2"),
    ),
    Bad("no batch model, batch given", tensor("no_batch", "FP32", [1, 3, 4], b""), ("[3, 4]",)),
]

DATATYPES = [
    Bad("wrong datatype", tensor("rows_FP32", "INT32", [1, 4], FP32_ROW), ("'INT32'", "FP32 was")),
    Bad("numpy's name", tensor("rows_FP32", "float32", [1, 4], FP32_ROW), ("no datatype",)),
    Bad("no datatype", tensor("rows_FP32", "", [1, 4], FP32_ROW), ("''", "FP32 was expected")),
    Bad("BF16 for FP16", tensor("rows_FP16", "BF16", [1, 4], bytes(8)), ("'BF16'", "FP16 was")),
]

PAYLOADS = [
    Bad("too short", tensor("rows_FP32", "FP32", [1, 4], bytes(15)), ("15 bytes", "16 were")),
    Bad("too long", tensor("rows_FP32", "FP32", [1, 4], bytes(17)), ("17 bytes", "16 were")),
    Bad("empty", tensor("rows_FP32", "FP32", [1, 4], b""), ("0 bytes", "16 were")),
    Bad("nothing", tensor("rows_FP32", "FP32", [1, 4]), ("0 elements in fp32_contents", "4 were")),
    Bad(
        "strings: a length past the end",
        tensor("strings", "BYTES", [1, 2], string(b"a") + b"\xff\xff\xff\x7fb"),
        ("not valid BYTES", "element 1", "2147483647 bytes", "1 are left"),
    ),
    Bad(
        "strings: cut inside a length",
        tensor("strings", "BYTES", [1, 2], string(b"a") + b"\x01\x00"),
        ("not valid BYTES", "ends before element 1"),
    ),
    Bad(
        "strings: too few",
        tensor("strings", "BYTES", [1, 2], string(b"a")),
        ("ends before element 1 of 2",),
    ),
    Bad(
        "strings: left over",
        tensor("strings", "BYTES", [1, 2], string(b"a") * 3),
        ("5 bytes are left",),
    ),
    Bad("strings: empty", tensor("strings", "BYTES", [1, 2], b""), ("ends before element 0",)),
    Bad(
        "BOOL above 1",
        tensor("rows_BOOL", "BOOL", [1, 4], b"\x00\x01\x02\x01"),
        ("BOOL", "byte above 1"),
    ),
    Bad(
        "too many raw entries",
        changed(simple(), lambda r: r.raw_input_contents.append(b"")),
        ("3 entries for 2 inputs",),
    ),
    Bad(
        "too few raw entries",
        changed(simple(), lambda r: r.raw_input_contents.pop()),
        ("1 entries for 2 inputs",),
    ),
]

CONTENTS = [
    Bad(
        "wrong field",
        tensor("rows_FP32", "FP32", [1, 4], fp64_contents=[1.0] * 4),
        ("fp64_contents", "fp32_contents was expected"),
    ),
    Bad(
        "two fields",
        tensor("rows_FP32", "FP32", [1, 4], fp32_contents=[1.0] * 4, int_contents=[1]),
        ("int_contents", "fp32_contents was expected"),
    ),
    Bad("too few", tensor("rows_FP32", "FP32", [1, 4], fp32_contents=[1.0]), ("1 elements", "4")),
    Bad("too many", tensor("rows_FP32", "FP32", [1, 4], fp32_contents=[1.0] * 5), ("5 elements",)),
    *(
        Bad(
            f"{value} as {datatype}",
            tensor(f"rows_{datatype}", datatype, [1, 4], **{field: [0, 0, value, 0]}),
            ("element outside", datatype),
        )
        for datatype, field, value in [
            ("INT8", "int_contents", 128),
            ("INT8", "int_contents", -129),
            ("INT16", "int_contents", 32768),
            ("UINT8", "uint_contents", 256),
            ("UINT16", "uint_contents", 65536),
        ]
    ),
    *(
        Bad(
            f"typed {datatype}",
            tensor(f"rows_{datatype}", datatype, [1, 4], fp32_contents=[1.0] * 4),
            (datatype, "raw contents only"),
        )
        for datatype in ("FP16", "BF16")
    ),
    Bad(
        "typed beside raw",
        tensor("rows_FP32", "FP32", [1, 4], FP32_ROW, fp32_contents=[1.0] * 4),
        ("typed contents beside raw contents",),
    ),
]

PARAMETERS = [
    Bad(
        f"{where}: {words}",
        parameters(where, **values),  # type: ignore[arg-type]
        (f"{where} '{where.upper()}0'", words),
        code,
    )
    for where in ("input", "output")
    for words, code, values in [
        ("must be a string", INVALID, {"shared_memory_region": number(1)}),
        ("byte_size is missing", INVALID, {"shared_memory_region": text("r")}),
        (
            "byte_size must be a whole number",
            INVALID,
            {"shared_memory_region": text("r"), "shared_memory_byte_size": text("16")},
        ),
        (
            "byte_size is -1",
            INVALID,
            {"shared_memory_region": text("r"), "shared_memory_byte_size": number(-1)},
        ),
        (
            "offset is -4",
            INVALID,
            {
                "shared_memory_region": text("r"),
                "shared_memory_byte_size": number(16),
                "shared_memory_offset": number(-4),
            },
        ),
        ("no shared_memory_region", INVALID, {"shared_memory_byte_size": number(16)}),
    ]
] + [
    Bad(
        f"{where}: unknown region",
        parameters(where, shared_memory_region=text("nowhere"), shared_memory_byte_size=number(16)),
        ("'nowhere'", "not registered"),
        NOT_FOUND,
    )
    for where in ("input", "output")
]

CLASSES = [
    Bad("classes: 0", parameter("output", "classification", int64_param=0), ("above 0",)),
    Bad("classes: negative", parameter("output", "classification", int64_param=-1), ("is -1",)),
    Bad(
        "classes: text",
        parameter("output", "classification", string_param="3"),
        ("must be a whole number",),
    ),
    *(
        Bad(
            f"classes of {datatype}",
            changed(
                tensor(f"rows_{datatype}", datatype, [1, 4], payload),
                lambda r: (
                    r.outputs.add(name="OUTPUT0").parameters["classification"].CopyFrom(number(1))
                ),
            ),
            (datatype, "has no classes"),
        )
        for datatype, payload in [("BYTES", string(b"a") * 4), ("BOOL", bytes(4))]
    ),
]

BAD = [*NAMES, *SHAPES, *DATATYPES, *PAYLOADS, *CONTENTS, *PARAMETERS, *CLASSES]
