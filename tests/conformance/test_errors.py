"""tritonclient's callers see which mistake they made."""

from __future__ import annotations

import pytest

from .conftest import Results

TRITON = "errors"


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("unknown_model", "NOT_FOUND", "model 'absent' is not known"),
        ("unknown_version", "NOT_FOUND", "has no version '9'; it has 1"),
        ("malformed_version", "INVALID_ARGUMENT", "'new' is no version"),
        ("wrong_shape", "INVALID_ARGUMENT", "'INPUT0' has shape [1, 15]"),
        ("wrong_datatype", "INVALID_ARGUMENT", "INT32 was expected"),
        ("missing_input", "INVALID_ARGUMENT", "'INPUT1' is missing"),
        ("unknown_input", "INVALID_ARGUMENT", "unknown input 'OTHER'"),
        ("unknown_output", "INVALID_ARGUMENT", "unknown output 'OTHER'"),
        ("batch_too_large", "INVALID_ARGUMENT", "maximum of 32"),
        ("classes_of_strings", "INVALID_ARGUMENT", "has no classes"),
        ("strings_that_are_not_text", "INVALID_ARGUMENT", "element 1 is not UTF-8 text"),
        ("payload_shorter_than_its_shape", "INVALID_ARGUMENT", "has 16 bytes; 32 were expected"),
    ],
)
def test_a_mistake_has_its_own_status_and_reason(
    triton: Results, case: str, code: str, said: str
) -> None:
    refusal = triton(case)
    assert refusal["code"] == code
    assert said in refusal["message"]
