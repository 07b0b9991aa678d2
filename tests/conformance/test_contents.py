"""Requests with typed contents, built with tritonclient's own messages."""

from __future__ import annotations

import pytest

from .conftest import Results

TRITON = "contents"


def test_typed_contents_of_every_datatype_are_read(triton: Results) -> None:
    assert triton("numbers") == {
        "BOOL": [True, False],
        "UINT8": [0, 255],
        "UINT16": [0, 65535],
        "UINT32": [0, 2**32 - 1],
        "UINT64": [0, 2**64 - 1],
        "INT8": [-128, 127],
        "INT16": [-32768, 32767],
        "INT32": [-(2**31), 2**31 - 1],
        "INT64": [-(2**63), 2**63 - 1],
        "FP32": [-1.5, 2.5],
        "FP64": [-1e300, 1e-300],
    }


def test_typed_strings_are_answered_raw(triton: Results) -> None:
    assert triton("strings") == ["typed", "BYTES", "0100000061" + "00000000"]


def test_bytes_that_are_no_text_are_served_by_a_model_that_only_moves_them(
    triton: Results,
) -> None:
    assert triton("bytes_of_an_image") == "0100000061" + "02000000ffd8"


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("element_out_of_range", "'INPUT5' has an element outside INT8"),
        ("wrong_field", "int_contents was expected for INT8"),
        ("too_few_elements", "1 elements in bytes_contents; 2 were expected"),
        ("contents_beside_raw_contents", "typed contents beside raw contents"),
        ("half_precision", "FP16, which travels as raw contents only"),
        ("strings_that_are_not_text", "element 1 is not UTF-8 text"),
    ],
)
def test_wrong_typed_contents_are_refused_with_the_reason(
    triton: Results, case: str, said: str
) -> None:
    refusal = triton(case)
    assert refusal["code"] == "INVALID_ARGUMENT"
    assert said in refusal["message"]
