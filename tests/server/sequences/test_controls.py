"""Control inputs are filled with each request's place in its sequence, in every datatype."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import InferParameter
from inferd.tensors import Array
from inferd_engines.engine import EngineError, Signature, Tensor
from inferd_server.errors import InvalidInput, SettingsError
from inferd_server.models.config import ControlConfig, ModelConfig
from inferd_server.sequences.controls import (
    ControlKind,
    control_array,
    control_tensors,
    largest_key,
)
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.steps import HIDDEN, LARGEST_KEY, Step, step_of
from inferd_server.sequences.store import Sequences
from inferd_server.settings.reading import validated

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine

STEPS = [Step(5, True, False), Step(2**64 - 1, False, True)]
FLOAT = np.dtype(np.float32)


def control(kind: ControlKind, *false_true: float) -> ControlConfig:
    given = {"false_true": list(false_true)} if false_true else {}
    return ControlConfig(kind=kind, input="C", **given)


def tensor(dtype: type, shape: tuple[int | None, ...] = (None, 1)) -> Tensor:
    return Tensor("C", np.dtype(dtype), shape)


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.bool_, np.uint8, np.float16])
@pytest.mark.parametrize(
    ("kind", "expected"), [("start", [1, 0]), ("end", [0, 1]), ("ready", [1, 1])]
)
def test_flags_are_told_in_every_datatype(
    dtype: type, kind: ControlKind, expected: list[int]
) -> None:
    found = control_array(control(kind), tensor(dtype), STEPS)
    assert (found.dtype, found.tolist()) == (np.dtype(dtype), [[value] for value in expected])


@pytest.mark.parametrize("dtype", [np.uint64, np.int64])
def test_an_id_of_64_bits_is_told_whole(dtype: type) -> None:
    found = control_array(control("correlation_id"), tensor(dtype), STEPS)
    assert found.view(np.uint64).tolist() == [[5], [2**64 - 1]]


@pytest.mark.parametrize("shape", [(None,), (None, 1), (None, 1, 1), (None, None)])
def test_the_shape_is_the_inputs(shape: tuple[int | None, ...]) -> None:
    found = control_array(control("start"), tensor(np.float32, shape), STEPS)
    assert found.shape == (2, *[1] * (len(shape) - 1))


@pytest.mark.parametrize(("shape", "expected"), [((), ()), ((1,), (1,))])
def test_a_model_without_a_batch_gets_one_number(
    shape: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert control_array(control("end"), tensor(np.int32, shape), STEPS[:1]).shape == expected


@pytest.mark.parametrize(
    ("kind", "dtype", "shape"),
    [
        ("correlation_id", np.float32, (None, 1)),
        ("start", object, (None, 1)),
        ("start", np.int32, (None, 2)),
    ],
)
def test_an_input_that_cannot_hold_it_is_told_at_the_start(
    kind: ControlKind, dtype: type, shape: tuple[int | None, ...]
) -> None:
    signature = Signature((tensor(dtype, shape),), ())
    with pytest.raises(EngineError, match="one number for each request was expected"):
        control_tensors(signature, [control(kind)], batched=True)


def test_an_id_that_the_models_input_cannot_hold_is_refused() -> None:
    filled = {"C": tensor(np.int32)}
    largest = largest_key([control("correlation_id")], filled)
    assert largest == 2**31 - 1
    assert largest_key([control("start")], filled) == LARGEST_KEY
    fits = {"sequence_id": InferParameter(int64_param=largest)}
    assert step_of(fits, 1, stateful=True, largest=largest)
    for beyond in (InferParameter(int64_param=-1), InferParameter(string_param="a")):
        with pytest.raises(InvalidInput, match="takes whole numbers up to 2147483647"):
            step_of({"sequence_id": beyond}, 1, stateful=True, largest=largest)


def test_callers_do_not_see_controls_and_a_batch_has_those_of_each_row() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] + inputs["C"]}

    signature = Signature(
        (Tensor("INPUT0", FLOAT, (None, 1)), tensor(np.float32)),
        (Tensor("OUTPUT0", FLOAT, (None, 1)),),
    )
    kept = Sequences(9, 9.0, FakeClock())
    inner = FakeEngine(signature, compute)
    engine = StatefulEngine(inner, [], kept, [control("start", 10, 20)], batched=True)
    assert [given.name for given in engine.told.inputs] == ["INPUT0"]
    hidden = [np.zeros((2, 1), given.dtype) for given in HIDDEN]
    for place, one in enumerate([Step(1, True, False), Step(2, True, False)]):
        one.write([array[place] for array in hidden])
    inputs = {given.name: array for given, array in zip(HIDDEN, hidden, strict=True)}
    found = engine.run(inputs | {"INPUT0": np.ones((2, 1), np.float32)}, {}, 2)
    assert found["OUTPUT0"].tolist() == [[21.0], [21.0]]


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        ([{"kind": "start", "input": "A"}, {"kind": "end", "input": "A"}], "input 'A'"),
        ([{"kind": "start", "input": "A"}, {"kind": "start", "input": "B"}], "control 'start'"),
        ([{"kind": "middle", "input": "A"}], "'correlation_id'"),
        ([{"kind": "start", "input": "A", "false_true": [0]}], "at least 2"),
    ],
)
def test_controls_that_cannot_be_meant_are_refused(
    controls: list[dict[str, object]], said: str
) -> None:
    with pytest.raises(SettingsError, match=said):
        validated(ModelConfig, {"sequence": {"controls": controls}}, "model.yaml")
