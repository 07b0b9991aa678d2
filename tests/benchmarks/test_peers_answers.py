"""A wrong answer of any server ends the run."""

from __future__ import annotations

import numpy as np
import pytest
from inferd.oip.v2 import inference_pb2 as pb

from benchmarks.peers.answers import compare, request
from benchmarks.peers.models import MEAN, example

EXPECTED = np.array([[0.25, 0.5, 0.75]], dtype=np.float32)


def answer(values: np.ndarray, name: str = "mean", id_: str = "7") -> pb.ModelInferResponse:
    tensor = pb.ModelInferResponse.InferOutputTensor(name=name, datatype="FP32", shape=values.shape)
    raw = [values.astype(np.float32).tobytes()]
    return pb.ModelInferResponse(id=id_, outputs=[tensor], raw_output_contents=raw)


def test_a_request_carries_the_row_raw_and_an_id() -> None:
    row = example(MEAN)
    asked = request(MEAN, row)
    assert list(asked.inputs[0].shape) == [1, 3, 224, 224]
    assert asked.raw_input_contents[0] == row.tobytes()
    assert asked.id


def test_an_answer_that_rounds_otherwise_passes() -> None:
    compare(answer(EXPECTED * np.float32(1.0001)), MEAN, EXPECTED)


def test_an_answer_in_typed_contents_passes() -> None:
    given = answer(EXPECTED)
    del given.raw_output_contents[:]
    given.outputs[0].contents.fp32_contents.extend(EXPECTED.ravel().tolist())
    compare(given, MEAN, EXPECTED)


def test_wrong_values_are_refused() -> None:
    with pytest.raises(RuntimeError, match="a wrong answer"):
        compare(answer(EXPECTED[:, ::-1]), MEAN, EXPECTED)


def test_too_few_values_are_refused() -> None:
    with pytest.raises(RuntimeError):
        compare(answer(EXPECTED[:, :2]), MEAN, EXPECTED)


@pytest.mark.parametrize(("name", "id_"), [("other", "7"), ("mean", "")])
def test_another_output_or_a_lost_id_is_refused(name: str, id_: str) -> None:
    with pytest.raises(RuntimeError, match=r"id '"):
        compare(answer(EXPECTED, name, id_), MEAN, EXPECTED)
