"""tritonclient hands over tensors in shared memory."""

from __future__ import annotations

import pytest

from .conftest import Results

TRITON = "shared_memory"
ROW = list(range(16))


def test_status_shows_a_region_while_it_is_registered(triton: Results) -> None:
    status = triton("status")
    assert status["during"] == {"name": "region", "key": True, "byte_size": "256"}
    assert status["one"] == 256
    assert status["after"] == {}


def test_inputs_are_read_from_a_region_and_outputs_written_into_it(triton: Results) -> None:
    answer = triton("inputs_and_outputs")
    assert answer["values"] == [[value + 1 for value in ROW], [value - 1 for value in ROW]]


def test_the_answer_says_where_in_the_region_an_output_lies(triton: Results) -> None:
    answer = triton("inputs_and_outputs")
    assert answer["described"][1] == {
        "name": "OUTPUT1",
        "datatype": "INT32",
        "shape": ["1", "16"],
        "parameters": {
            "shared_memory_region": {"string_param": "region"},
            "shared_memory_byte_size": {"int64_param": "64"},
            "shared_memory_offset": {"int64_param": "192"},
        },
    }
    # An empty entry each, because clients count them.
    assert answer["raw"] == ["", ""]


def test_one_output_goes_to_a_region_and_the_other_into_the_message(triton: Results) -> None:
    outputs = triton("output_beside_the_message")
    assert outputs == {"OUTPUT0": [[value + 2 for value in ROW]], "OUTPUT1": [ROW]}


def test_strings_pass_through_a_region(triton: Results) -> None:
    assert triton("strings") == ["first", ""]


def test_a_region_may_begin_inside_its_object(triton: Results) -> None:
    assert triton("registration_with_an_offset") == [[2 * value for value in ROW]]


def test_unregistering_without_a_name_forgets_every_region(triton: Results) -> None:
    assert triton("unregister_all") == [["other", "region"], []]


@pytest.mark.parametrize(
    ("case", "code", "said"),
    [
        ("twice", "ALREADY_EXISTS", "registered already"),
        ("unknown_key", "INVALID_ARGUMENT", "No such file"),
        ("too_large", "INVALID_ARGUMENT", "has 256 bytes"),
        ("input_past_the_end", "INVALID_ARGUMENT", "reaches to byte 320"),
        ("unregistered", "NOT_FOUND", "is not registered"),
        ("unknown_status", "NOT_FOUND", "is not registered"),
    ],
)
def test_a_wrong_region_is_refused_with_the_reason(
    triton: Results, case: str, code: str, said: str
) -> None:
    refusal = triton("refusals")[case]
    assert refusal["code"] == code
    assert said in refusal["message"]


def test_an_output_larger_than_its_place_is_refused(triton: Results) -> None:
    refusal = triton("output_too_small")
    assert refusal["code"] == "INVALID_ARGUMENT"
    assert "64 bytes, and 63 are set aside" in refusal["message"]


def test_without_cuda_shared_memory_there_is_nothing_to_list_and_nothing_to_forget(
    triton: Results,
) -> None:
    cuda = triton("cuda")
    assert cuda["status"] == {}
    assert cuda["unregistered"] == [None, None]
    assert (cuda["register"]["code"], cuda["one"]["code"]) == ("INVALID_ARGUMENT", "NOT_FOUND")
