from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from inferd.tensors import CONTENTS_FIELDS, DATATYPES, Array
from inferd_client import payloads
from inferd_client.errors import InvalidResponse
from inferd_client.payloads import OutputTensor

SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
FIXED = sorted(set(DATATYPES) - {"BYTES"})


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str]) -> Array:
    datatype, shape = draw(st.sampled_from(datatypes)), draw(SHAPES)
    if datatype == "BYTES":
        return draw(arrays.arrays(object, shape, elements=st.binary(max_size=9), fill=st.nothing()))
    dtype = DATATYPES[datatype]
    if datatype == "BOOL":
        return draw(arrays.arrays(np.bool_, shape))
    # Any bit pattern is a valid element, NaNs with payloads included.
    width = np.dtype(f"u{dtype.itemsize}")
    return draw(arrays.arrays(width, shape)).view(dtype)


def output_of(array: Array) -> tuple[OutputTensor, bytes]:
    tensor, raw = payloads.encode("x", array)
    return OutputTensor(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape), raw


def bits(array: Array) -> list[object]:
    return [array.tolist()] if array.dtype == object else [array.tobytes()]


@given(tensors(sorted(DATATYPES)))
def test_what_is_encoded_is_decoded(array: Array) -> None:
    decoded = payloads.decode(*output_of(array))
    assert (decoded.dtype, decoded.shape) == (array.dtype, array.shape)
    assert bits(decoded) == bits(array)


@given(tensors(FIXED))
def test_layout_in_memory_does_not_matter(array: Array) -> None:
    assert payloads.encode("x", np.asfortranarray(array))[1] == array.tobytes()


@given(tensors(FIXED), st.integers(-3, 3).filter(bool))
def test_wrong_length_never_becomes_an_array(array: Array, change: int) -> None:
    output, raw = output_of(array)
    damaged = raw + bytes(change) if change > 0 else raw[:change]
    assume(damaged != raw)
    with pytest.raises(InvalidResponse, match=f"{len(damaged)} bytes came"):
        payloads.decode(output, damaged)


@given(tensors(sorted(set(CONTENTS_FIELDS) - {"FP32", "FP64"})))
def test_typed_contents_are_decoded(array: Array) -> None:
    output, _ = output_of(array)
    getattr(output.contents, CONTENTS_FIELDS[output.datatype]).extend(array.reshape(-1).tolist())
    assert bits(payloads.decode(output, None)) == bits(array)


@pytest.mark.parametrize(
    "value",
    [
        np.array(["é", "b"]),
        np.array([b"\xc3\xa9", b"b"]),
        np.array(["é", b"b"], object),
        ["é", "b"],
    ],
    ids=["U", "S", "object", "list"],
)
def test_strings_of_every_kind_arrive_as_utf8_bytes(value: Array) -> None:
    decoded = payloads.decode(*output_of(value))
    assert decoded.tolist() == ["é".encode(), b"b"]


def test_big_endian_numbers_are_sent_little_endian() -> None:
    assert payloads.encode("x", np.array([1], ">i4"))[1] == b"\1\0\0\0"


@pytest.mark.parametrize(
    ("dtype", "datatype", "raw"),
    [(np.float16, "FP16", b"\x00\x3c"), (ml_dtypes.bfloat16, "BF16", b"\x80\x3f")],
)
def test_half_precision_travels_as_it_is(dtype: type, datatype: str, raw: bytes) -> None:
    tensor, sent = payloads.encode("x", np.ones(1, dtype))
    assert (tensor.datatype, sent) == (datatype, raw)
    assert payloads.decode(OutputTensor(datatype=datatype, shape=[1]), raw).dtype == dtype
