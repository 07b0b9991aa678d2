"""tritonclient streams."""

from __future__ import annotations

from .conftest import Results

TRITON = "stream"
MANY = 300


def test_each_of_many_requests_in_flight_gets_its_own_answer(triton: Results) -> None:
    assert triton("many_in_flight") == {str(index): index + 1 for index in range(MANY)}


def test_an_error_in_the_middle_leaves_the_stream_open(triton: Results) -> None:
    before, error, after = triton("error_in_the_middle")
    assert (before, after) == ("simple", "simple")
    assert "model 'absent' is not known" in error["message"]


def test_a_refused_request_names_its_mistake_and_the_next_one_is_served(triton: Results) -> None:
    answer = triton("wrong_shape_among_others")
    assert "'INPUT0' has shape [1, 2]" in answer["message"]
    assert answer["served"] == "right"


def test_stopping_waits_for_every_answer(triton: Results) -> None:
    assert triton("stop_answers_everything_first") == MANY


def test_a_stream_that_was_never_used_stops_without_an_answer(triton: Results) -> None:
    assert triton("unused_stream") == 0


def test_a_client_can_stream_again_after_stopping(triton: Results) -> None:
    assert triton("second_stream") == ["first", "second"]


def test_a_cancelled_stream_ends_and_the_server_goes_on(triton: Results) -> None:
    ended = triton("cancelled_stream")
    assert (ended["code"], ended["server_live"]) == ("CANCELLED", True)


def test_a_stream_ends_at_its_deadline(triton: Results) -> None:
    assert triton("stream_past_its_deadline")["code"] == "DEADLINE_EXCEEDED"


def test_parameters_headers_and_compression_are_accepted_on_a_stream(triton: Results) -> None:
    assert triton("stream_parameters") == [list(range(2, 18))]


def test_each_answer_says_that_its_request_has_no_other(triton: Results) -> None:
    assert triton("final_response") == {"final": True, "left": 0}
