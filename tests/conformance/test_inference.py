"""tritonclient infers with raw contents."""

from __future__ import annotations

from .conftest import NUMBERS, Results

TRITON = "inference"
SUMS = [list(range(2, 18))]
DIFFERENCES = [list(range(16))]


def test_every_number_comes_back_with_its_extremes(triton: Results) -> None:
    assert triton("every_number") == dict.fromkeys(NUMBERS, True)


def test_both_16_bit_floats_come_back(triton: Results) -> None:
    values = [[1.5, -3.140625]]
    assert triton("halves") == {"FP16": values, "BF16": values}


def test_strings_come_back_empty_long_and_beyond_ascii(triton: Results) -> None:
    assert triton("strings") == [["", "a\0b"], ["é", "c" * 300]]


def test_each_of_several_outputs_is_computed_from_both_inputs(triton: Results) -> None:
    outputs = triton("several_inputs_and_outputs")
    assert outputs == {"OUTPUT0": SUMS, "OUTPUT1": DIFFERENCES}


def test_only_requested_outputs_come_and_in_the_order_asked_for(triton: Results) -> None:
    assert triton("requested_outputs") == [["OUTPUT1", "OUTPUT0"], ["OUTPUT1"]]


def test_classification_gives_the_best_classes_of_each_row_with_labels(triton: Results) -> None:
    assert triton("classification") == [
        ["3.000000:2:fox", "1.000000:3:owl"],
        ["5.000000:3:owl", "4.000000:0:cat"],
    ]


def test_the_answer_has_the_id_of_its_request_and_names_the_version(triton: Results) -> None:
    assert triton("request_id") == ["seven", "simple", "1"]


def test_the_version_asked_for_answers_and_the_newest_without_one(triton: Results) -> None:
    double, triple = [[2, 4, 6, 8]], [[3, 6, 9, 12]]
    assert triton("model_versions") == [double, triple, triple]


def test_sequence_priority_timeout_and_custom_parameters_are_accepted(triton: Results) -> None:
    assert triton("parameters") == SUMS


def test_compressed_calls_are_answered(triton: Results) -> None:
    assert triton("compression") == {"gzip": SUMS, "deflate": SUMS}


def test_tensors_above_grpcs_own_bound_pass_both_ways(triton: Results) -> None:
    assert triton("large_tensor") is True


def test_a_model_without_a_batch_dimension_answers(triton: Results) -> None:
    assert triton("no_batch_dimension") == [[1, 1]] * 3


def test_each_of_many_callbacks_gets_its_own_answer(triton: Results) -> None:
    assert triton("callbacks") == {str(index): index + 1 for index in range(100)}


def test_a_callback_gets_the_error(triton: Results) -> None:
    assert triton("callback_with_error")["code"] == "NOT_FOUND"


def test_a_deadline_that_passes_ends_the_call(triton: Results) -> None:
    assert triton("elapsed_deadline")["code"] == "DEADLINE_EXCEEDED"
