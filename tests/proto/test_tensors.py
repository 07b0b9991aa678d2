from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from inferd import tensors

ELEMENTS = st.lists(st.binary(max_size=20), max_size=10)


def objects(elements: list[bytes]) -> tensors.Array:
    array = np.empty(len(elements), object)
    array[:] = elements
    return array


@given(ELEMENTS)
def test_bytes_elements_come_back(elements: list[bytes]) -> None:
    data = tensors.encode_bytes(objects(elements))
    assert tensors.decode_bytes(data, len(elements)).tolist() == elements


@given(ELEMENTS, st.sampled_from([bytes, bytearray, memoryview]))
def test_any_buffer_is_read(elements: list[bytes], buffer: type) -> None:
    data = buffer(tensors.encode_bytes(objects(elements)))
    assert tensors.decode_bytes(data, len(elements)).tolist() == elements


@given(ELEMENTS.filter(bool), st.data())
def test_truncated_bytes_are_refused(elements: list[bytes], data: st.DataObject) -> None:
    whole = tensors.encode_bytes(objects(elements))
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match=r"ends before|are left"):
        tensors.decode_bytes(whole[:kept], len(elements))


@given(ELEMENTS, st.integers(-10, 10).filter(bool))
def test_wrong_count_is_refused(elements: list[bytes], change: int) -> None:
    count = max(0, len(elements) + change)
    assume(count != len(elements))
    with pytest.raises(ValueError, match=r"ends before|are left"):
        tensors.decode_bytes(tensors.encode_bytes(objects(elements)), count)


@given(st.binary(max_size=64), st.integers(0, 20))
def test_garbage_is_refused_or_is_the_encoding_of_what_was_read(data: bytes, count: int) -> None:
    try:
        elements = tensors.decode_bytes(data, count)
    except ValueError:
        return
    assert tensors.encode_bytes(elements) == data


def test_length_beyond_the_end_is_named() -> None:
    with pytest.raises(ValueError, match="element 0 says 4294967295 bytes, and 1 are left"):
        tensors.decode_bytes(struct.pack("<I", 2**32 - 1) + b"x", 1)


def test_count_from_the_wire_allocates_no_more_than_the_data_allows() -> None:
    with pytest.raises(ValueError, match="ends before element 0"):
        tensors.decode_bytes(b"", 2**60)


@pytest.mark.parametrize("datatype", sorted(tensors.DATATYPES))
def test_every_datatype_has_one_dtype_and_back(datatype: str) -> None:
    assert tensors.datatype_of(tensors.DATATYPES[datatype]) == datatype


@pytest.mark.parametrize(
    ("dtype", "datatype"),
    [(">f4", "FP32"), (">i8", "INT64"), ("S3", "BYTES"), ("U3", "BYTES"), (bool, "BOOL")],
)
def test_byte_order_and_string_length_do_not_change_the_datatype(dtype: str, datatype: str) -> None:
    assert tensors.datatype_of(dtype) == datatype


@pytest.mark.parametrize("dtype", ["c8", "M8[s]", "m8[s]", "V4", "f16"])
def test_dtype_without_a_name_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="no datatype"):
        tensors.datatype_of(dtype)


def test_only_half_precision_has_no_typed_contents() -> None:
    assert set(tensors.DATATYPES) - set(tensors.CONTENTS_FIELDS) == {"FP16", "BF16"}
