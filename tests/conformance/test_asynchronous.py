"""tritonclient's asyncio client."""

from __future__ import annotations

from .conftest import Results

TRITON = "asynchronous"


def test_liveness_and_readiness_are_told(triton: Results) -> None:
    assert triton("states") == [True, True, True, False]


def test_everything_that_describes_is_told(triton: Results) -> None:
    assert triton("metadata") == {
        "server": "inferd",
        "model": "simple",
        "config": "simple",
        "statistics": "simple",
        "index": True,
        "log": True,
        "trace": ["OFF"],
        "regions": [],
    }


def test_a_call_is_answered(triton: Results) -> None:
    assert triton("infer") == [list(range(2, 18))]


def test_each_of_many_concurrent_calls_gets_its_own_answer(triton: Results) -> None:
    assert triton("many_at_once") == {str(index): index + 1 for index in range(100)}


def test_cancelled_calls_leave_the_others_alone(triton: Results) -> None:
    assert triton("cancelled_calls") == {"others_answered": True, "live": True}


def test_an_error_has_its_code(triton: Results) -> None:
    assert triton("error")["code"] == "NOT_FOUND"


def test_a_model_is_unloaded_and_loaded(triton: Results) -> None:
    assert triton("unload_and_load") == [False, True]


def test_an_error_on_a_stream_leaves_the_others_answered(triton: Results) -> None:
    answer = triton("stream")
    assert answer["results"] == 2
    [error] = answer["errors"]
    assert "model 'absent' is not known" in error["message"]
