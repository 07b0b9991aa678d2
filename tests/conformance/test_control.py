"""tritonclient loads and unloads models, and reads and changes settings."""

from __future__ import annotations

from .conftest import Results

TRITON = "control"


def test_an_unloaded_model_is_not_found_and_its_server_stays_ready(triton: Results) -> None:
    unloaded = triton("unload_and_load")["unloaded"]
    assert (unloaded["ready"], unloaded["server_ready"]) == (False, True)
    assert unloaded["infer"]["code"] == "NOT_FOUND"
    assert unloaded["metadata"]["code"] == "NOT_FOUND"
    assert "was unloaded" in unloaded["infer"]["message"]
    assert unloaded["index"] == ["1", "UNAVAILABLE", "unloaded"]


def test_a_model_that_is_loaded_again_serves(triton: Results) -> None:
    loaded = triton("unload_and_load")
    assert loaded["index"] == ["1", "READY", ""]
    assert loaded["answer"] == [[1, 2, 3, 4]]


def test_loading_a_model_that_serves_keeps_it_ready(triton: Results) -> None:
    assert triton("load_again") is True


def test_a_model_is_unloaded_with_its_dependents(triton: Results) -> None:
    assert triton("unload_with_dependents") is False


def test_loading_and_unloading_unknown_models_is_not_found(triton: Results) -> None:
    assert [refusal["code"] for refusal in triton("unknown_models")] == ["NOT_FOUND"] * 2


def test_a_model_is_loaded_with_a_configuration_and_files_of_the_caller(triton: Results) -> None:
    loaded = triton("load_with_another_configuration")
    assert loaded["batch_sizes"] == [2, 32]
    assert loaded["versions"] == [["3"], ["1"]]
    assert loaded["refused"]["code"] == "INVALID_ARGUMENT"
    assert loaded["refused"]["message"].startswith("failed to load 'reloaded'")
    assert loaded["answer"] == [[1, 2, 3, 4]]


def test_trace_settings_say_that_nothing_is_traced(triton: Results) -> None:
    trace = triton("trace_settings")
    assert trace["settings"]["trace_level"] == {"value": ["OFF"]}
    assert trace["same"] is True


def test_trace_settings_can_be_cleared_and_not_changed(triton: Results) -> None:
    answer = triton("update_trace_settings")
    assert answer["cleared"] == {"value": ["1000"]}
    assert answer["changed"]["code"] == "UNIMPLEMENTED"
    assert answer["unknown"]["code"] == "INVALID_ARGUMENT"


def test_log_settings_have_tritons_names_and_kinds(triton: Results) -> None:
    assert triton("log_settings") == {
        "log_file": {"string_param": ""},
        "log_info": {"bool_param": True},
        "log_warning": {"bool_param": True},
        "log_error": {"bool_param": True},
        "log_verbose_level": {"uint32_param": 0},
        "log_format": {"string_param": "default"},
    }


def test_a_changed_log_level_is_told_until_it_is_changed_back(triton: Results) -> None:
    levels = [level["uint32_param"] for level in triton("update_log_settings")]
    assert levels == [1, 1, 0]


def test_log_settings_that_cannot_be_had_are_refused(triton: Results) -> None:
    unknown, fixed = triton("wrong_log_settings")
    assert (unknown["code"], fixed["code"]) == ("INVALID_ARGUMENT", "INVALID_ARGUMENT")
    assert "'loudness'" in unknown["message"]
    assert "log_file cannot be changed" in fixed["message"]
