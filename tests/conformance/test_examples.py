"""What tritonclient's own examples do works, in one process and in several."""

from __future__ import annotations

from itertools import accumulate

import pytest

from .conftest import Results, results

TRITON = "examples"
SUMS = list(accumulate((11, 7, 5, 3, 2, 0, 1)))
FALLING = [-total for total in SUMS]


@pytest.fixture(scope="module", params=["address", "split_address"])
def triton(request: pytest.FixtureRequest) -> Results:
    """What the examples gave, in each arrangement."""
    return results(TRITON, request.getfixturevalue(request.param), "")


def test_answers_of_sequences_come_in_the_order_of_a_streams_requests(triton: Results) -> None:
    first = [[f"1007_{step}", total] for step, total in enumerate(SUMS)]
    second = [[f"1008_{step}", total] for step, total in enumerate(FALLING)]
    assert triton("sequences_over_a_stream") == first + second


def test_sequences_take_turns_call_by_call_and_ids_may_be_negative(triton: Results) -> None:
    assert triton("sequences_one_call_at_a_time") == [SUMS, FALLING]


def test_a_sequence_builds_up_over_an_asynchronous_stream(triton: Results) -> None:
    assert triton("sequences_over_an_asynchronous_stream") == SUMS


def test_the_image_client_gets_the_best_classes_of_each_image(triton: Results) -> None:
    answer = triton("image_client")
    best = [
        ["0.500000:1:green", "0.000000:0:red"],
        ["0.250000:2:blue", "0.000000:0:red"],
    ]
    assert answer["classes"] == best
    assert answer["streamed"] == best
    assert answer["batch"] > 0


@pytest.mark.parametrize("case", ["keepalive", "custom_channel_arguments"])
def test_channels_with_options_are_served(triton: Results, case: str) -> None:
    assert triton(case) == [2, 3]


def test_every_shared_memory_example_can_begin_and_end(triton: Results) -> None:
    assert triton("shared_memory_from_the_beginning") == {
        "shared": [2, 3],
        "listed": ["output_data"],
        "plain": [2, 3],
        "left": 0,
    }


def test_the_generated_stub_is_served_with_raw_and_typed_contents(triton: Results) -> None:
    assert triton("raw_stub") == {"raw": [0, 2, 4], "bytes": 16, "strings": 14}


def test_health_and_metadata_say_what_there_is(triton: Results) -> None:
    assert triton("health_and_metadata") == {
        "live": True,
        "ready": True,
        "model": True,
        "name": "inferd",
        "several": True,
    }


def test_the_same_call_has_the_same_answer_every_time(triton: Results) -> None:
    assert triton("the_same_call_many_times") == ["[[1.0, 2.0, 3.0, 4.0]]"]
