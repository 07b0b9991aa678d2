"""ONNX Runtime's messages come out as one line, and only sticky CUDA errors are fatal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.onnx_errors import LIMIT, brief, is_fatal


def test_codes_and_newlines_are_dropped() -> None:
    error = RuntimeError(
        "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions\n index: 1 Got: 5"
    )
    assert brief(error) == "Got invalid dimensions index: 1 Got: 5"


def test_the_place_in_the_source_is_dropped() -> None:
    error = RuntimeError(
        "Status Message: /onnxruntime_src/include/onnxruntime/core/ort_value.h:97 const T&"
        " OrtValue::Get() const [with T = onnxruntime::TensorSeq] IsTensorSequence() was false."
    )
    assert brief(error) == "Status Message: IsTensorSequence() was false."


def test_a_stack_is_dropped() -> None:
    assert brief(RuntimeError("it failed\nStacktrace:\n#0 main\n")) == "it failed"


@given(st.text())
def test_any_message_becomes_one_short_line(text: str) -> None:
    line = brief(RuntimeError(text))
    assert len(line) <= LIMIT
    assert "\n" not in line


@pytest.mark.parametrize(
    ("message", "fatal"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("CUDA failure 2: out of memory ; GPU=0", False),
        ("Non-zero status code returned while running Add node", False),
    ],
)
def test_only_sticky_cuda_errors_are_fatal(message: str, fatal: bool) -> None:
    assert is_fatal(RuntimeError(message)) is fatal
