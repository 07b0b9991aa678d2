"""Which options and providers a session gets, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_session import reason_for, serving, session_options, with_cpu

from tests import models

CPU, CUDA, AZURE = "CPUExecutionProvider", "CUDAExecutionProvider", "AzureExecutionProvider"


def test_the_default_is_the_cpu_and_needs_no_reason(tmp_path: Path) -> None:
    engine = open_onnx(models.save(models.add_sub(), tmp_path / "m.onnx"), EngineOptions())
    assert (engine.name, engine.reason) == (f"onnxruntime/{CPU}", "")


def test_a_provider_that_is_not_built_in_is_reported(tmp_path: Path) -> None:
    options = EngineOptions(providers=("NoSuchExecutionProvider",))
    engine = open_onnx(models.save(models.add_sub(), tmp_path / "m.onnx"), options)
    assert engine.name == f"onnxruntime/{CPU}"
    assert engine.reason == (
        "NoSuchExecutionProvider was asked for and is not in this build of onnxruntime;"
        f" serving on {CPU}"
    )


def test_a_provider_that_runs_no_node_is_not_said_to_serve(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    if AZURE not in onnxruntime.get_available_providers():
        pytest.skip("this build of onnxruntime has no provider that runs nothing")
    options = EngineOptions(providers=(AZURE,))
    engine = open_onnx(models.save(models.add_sub(), tmp_path / "m.onnx"), options)
    assert engine.name == f"onnxruntime/{CPU}"
    assert "can run no part of this model" in engine.reason


def test_a_provider_that_fails_to_start_is_reported_with_its_message() -> None:
    reason = reason_for(CUDA, CPU, built={CUDA, CPU}, registered={CPU}, failure="no device")
    assert reason == f"{CUDA} was asked for and did not start (no device); serving on {CPU}"


def test_no_reason_is_given_where_the_first_choice_serves() -> None:
    assert reason_for(CUDA, CUDA, built={CUDA, CPU}, registered={CUDA, CPU}) == ""


@pytest.mark.parametrize(
    ("assigned", "expected"),
    [({CPU}, CPU), ({CPU, CUDA}, CUDA), (set(), CUDA)],
    ids=["cpu only", "both", "no nodes"],
)
def test_the_first_provider_with_nodes_serves(assigned: set[str], expected: str) -> None:
    assert serving([CUDA, CPU], assigned) == expected


def test_the_cpu_comes_last_and_once() -> None:
    assert with_cpu([CUDA]) == [CUDA, CPU]
    assert with_cpu([CPU]) == [CPU]
    assert with_cpu([]) == [CPU]


def test_threads_and_config_entries_reach_the_runtime() -> None:
    entry = "session.intra_op.spin_duration_us"
    options = session_options(EngineOptions(threads=3, extra={entry: "50"}))
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry(entry) == "50"


def test_threads_spin_for_a_moment_unless_the_operator_says_otherwise() -> None:
    spin, moment = "session.intra_op.allow_spinning", "session.intra_op.spin_duration_us"
    usual = session_options(EngineOptions())
    assert (usual.get_session_config_entry(spin), usual.get_session_config_entry(moment)) == (
        ("1", "20")
    )
    assert session_options(EngineOptions(extra={spin: "0"})).get_session_config_entry(spin) == "0"


def test_an_unknown_config_entry_is_refused() -> None:
    with pytest.raises(EngineError, match=r"no session config entry session\.intra_op\.spin"):
        session_options(EngineOptions(extra={"session.intra_op.spin": "0"}))


@pytest.mark.parametrize(
    ("entry", "value", "said"),
    [
        ("session.intra_op.allow_spinning", "banana", "must be 0 or 1"),
        ("session.set_denormal_as_zero", "true", "must be 0 or 1"),
        ("session.disable_prepacking", "", "must be 0 or 1"),
        ("session.intra_op.spin_duration_us", "-1", "must be a whole number"),
        ("session.qdq_matmulnbits_block_size", "many", "must be a whole number"),
    ],
)
def test_a_value_that_a_known_entry_cannot_have_is_refused(
    entry: str, value: str, said: str
) -> None:
    with pytest.raises(EngineError, match=rf"{entry} is '{value}', and {said}"):
        session_options(EngineOptions(extra={entry: value}))


def test_threads_left_to_the_engine_are_counted() -> None:
    assert session_options(EngineOptions()).intra_op_num_threads >= 1
