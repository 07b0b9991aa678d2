"""The walk over a request's bytes: the generated class and it always agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.protobuf import varint
from inferd_server.inference.wire import parse

from tests.proto.in_python import assert_succeeds
from tests.server.inference.alike import walked, whole

RAW = 7


def field(number: int, kind: int, body: bytes) -> bytes:
    return varint(number << 3 | kind) + body


def raw_entry(data: bytes) -> bytes:
    return field(RAW, 2, varint(len(data)) + data)


@st.composite
def overlong(draw: st.DrawFn, value: int) -> bytes:
    """A varint with needless continuation bytes."""
    zeros = draw(st.integers(0, 10))
    encoded = varint(value)
    return (
        encoded
        if not zeros
        else encoded[:-1] + bytes([encoded[-1] | 128] + [128] * (zeros - 1) + [0])
    )


names = st.text(max_size=5)
shapes = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4)
parameter = st.one_of(
    st.builds(lambda v: {"bool_param": v}, st.booleans()),
    st.builds(lambda v: {"int64_param": v}, st.integers(-(2**63), 2**63 - 1)),
    st.builds(lambda v: {"string_param": v}, names),
    st.builds(lambda v: {"double_param": v}, st.floats()),
    st.builds(lambda v: {"uint64_param": v}, st.integers(0, 2**64 - 1)),
)
contents = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=4), max_size=3),
    },
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": names,
        "datatype": st.sampled_from(["FP32", "BYTES", ""]),
        "shape": shapes,
        "parameters": st.dictionaries(names, parameter, max_size=2),
        "contents": contents,
    },
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "model_name": names,
        "model_version": names,
        "id": names,
        "parameters": st.dictionaries(names, parameter, max_size=2),
        "inputs": st.lists(tensors, max_size=2),
        "outputs": st.lists(st.fixed_dictionaries({"name": names}), max_size=2),
    },
).map(lambda fields: ModelInferRequest(**fields).SerializeToString())

numbers = st.sampled_from([1, 5, 6, 7, 8, 15, 16, 2047, 2**29 - 1])
unknown = st.one_of(
    st.builds(lambda n, v: field(n, 0, v), numbers, st.integers(0, 2**64 - 1).flatmap(overlong)),
    st.builds(lambda n, v: field(n, 1, v), numbers, st.binary(min_size=8, max_size=8)),
    st.builds(lambda n, v: field(n, 5, v), numbers, st.binary(min_size=4, max_size=4)),
    st.builds(lambda n, v: field(n, 2, varint(len(v)) + v), numbers, st.binary(max_size=9)),
    st.builds(lambda n, v: field(n, 3, v + field(n, 4, b"")), numbers, messages),
    st.builds(lambda n: field(n, 3, b""), numbers),
    st.builds(lambda n: field(n, 4, b""), numbers),
    st.builds(lambda n: field(n, 6, b""), numbers),
    st.just(b"\x00"),
)
payload = st.binary(max_size=300).flatmap(
    lambda data: st.builds(
        lambda tag, size: tag + size + data, overlong(RAW << 3 | 2), overlong(len(data))
    )
)
# A length or a tag of more bits than protobuf has.
absurd = st.builds(
    lambda head, big: head + varint(big) + b"abc",
    st.sampled_from([b"\x3a", b"\x42", b""]),
    st.integers(2**31 - 2, 2**64 - 1),
)
chunks = st.lists(st.one_of(messages, payload, unknown, absurd), max_size=6).map(b"".join)
usual = st.lists(st.one_of(messages, payload), max_size=6).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(chunks)
def test_any_sequence_of_fields_is_read_as_the_generated_class_reads_it(data: bytes) -> None:
    assert walked(data) == whole(data)


@settings(max_examples=300, deadline=None)
@given(usual, st.data())
def test_a_truncated_message_is_read_alike(data: bytes, draw: st.DataObject) -> None:
    cut = data[: draw.draw(st.integers(0, len(data)))]
    assert walked(cut) == whole(cut)


@settings(max_examples=300, deadline=None)
@given(usual, st.data())
def test_a_damaged_message_is_read_alike(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data + b"\x3a\x01x")
    position = draw.draw(st.integers(0, len(damaged) - 1))
    damaged[position] = draw.draw(st.integers(0, 255))
    assert walked(bytes(damaged)) == whole(bytes(damaged))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_random_bytes_are_read_alike(data: bytes) -> None:
    assert walked(data) == whole(data)


@pytest.mark.parametrize("depth", [50, 99, 100, 101, 200])
def test_nested_groups_are_read_alike(depth: int) -> None:
    data = field(9, 3, b"") * depth + field(9, 4, b"") * depth + raw_entry(b"abc")
    assert walked(data) == whole(data)


def test_payloads_are_views_of_the_message() -> None:
    data = bytes(range(256)) * 8
    message = ModelInferRequest(model_name="m", raw_input_contents=[data, b"", data])
    serialised = message.SerializeToString()
    _, raw = parse(serialised)
    assert [bytes(entry) for entry in raw] == [data, b"", data]
    base = np.frombuffer(serialised, np.uint8)
    assert all(np.shares_memory(base, np.frombuffer(raw[i], np.uint8)) for i in (0, 2))


def test_damaged_text_is_refused_where_protobuf_runs_in_python() -> None:
    """There it raises another error than the usual one."""
    code = (
        "from inferd.oip.v2 import inference_pb2\n"
        "from inferd_server.errors import InvalidInput\n"
        "from inferd_server.rpc.audit import target_of\n"
        "from inferd_server.rpc.handlers import parse_message\n"
        "from inferd_server.inference.wire import parse\n"
        "load = inference_pb2.DESCRIPTOR.services_by_name['GRPCInferenceService']\n"
        "assert target_of(load.methods_by_name['RepositoryModelLoad'], b'\\x12\\1\\xff') == ''\n"
        "whole = lambda data: parse_message(inference_pb2.ModelMetadataRequest, data)\n"
        "for reader, data in [(parse, b'\\x0a\\1\\xff'), (whole, b'\\x0a\\1\\xff')]:\n"
        "    try:\n"
        "        reader(data)\n"
        "    except InvalidInput as error:\n"
        "        assert 'is not a Model' in str(error)\n"
        "    else:\n"
        "        raise AssertionError(reader)\n"
    )
    assert_succeeds(code)
