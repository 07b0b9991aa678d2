"""Prebuilt responses are read by the generated class as if it had made them."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferResponse
from inferd.tensors import DATATYPES, Array
from inferd_server.inference.response import OutputTarget, Responses, Unnamed, encode_response
from inferd_server.inference.wire import identity_field

from tests.server.inference.outputs import Form, filled

FORMS = st.tuples(
    st.sampled_from(sorted(DATATYPES)), st.lists(st.integers(0, 4), max_size=3).map(tuple)
)


def prebuilt(responses: Responses, identity: str, outputs: Mapping[str, Array]) -> bytes:
    request = SimpleNamespace(identity=identity_field(identity))
    return b"".join(responses.encode(request, outputs))


def by_the_class(
    model: str,
    version: int,
    identity: str,
    targets: list[OutputTarget],
    outputs: Mapping[str, Array],
) -> ModelInferResponse:
    echo = Unnamed(model, identity)
    return ModelInferResponse.FromString(b"".join(encode_response(echo, version, targets, outputs)))


@given(
    st.text(max_size=5),
    st.integers(1, 300),
    st.lists(FORMS, min_size=1, max_size=3),
    st.lists(st.tuples(st.text(max_size=200), st.integers(0, 2**32)), min_size=1, max_size=4),
)
def test_every_response_of_one_form_is_that_of_the_generated_class(
    model: str, version: int, forms: list[Form], requests: list[tuple[str, int]]
) -> None:
    targets = [OutputTarget(f"O{index}") for index in range(len(forms))]
    responses = Responses(model, version, targets)
    for identity, seed in requests:
        outputs = {f"O{i}": filled(*form, seed + i) for i, form in enumerate(forms)}
        read = ModelInferResponse.FromString(prebuilt(responses, identity, outputs))
        assert read == by_the_class(model, version, identity, targets, outputs)


@given(st.lists(st.tuples(FORMS, st.integers(0, 2**32)), min_size=2, max_size=6))
def test_outputs_of_another_form_get_a_header_of_their_own(
    sent: list[tuple[Form, int]],
) -> None:
    responses = Responses("m", 1, [OutputTarget("O")])
    for form, seed in sent:
        outputs = {"O": filled(*form, seed)}
        read = ModelInferResponse.FromString(prebuilt(responses, "7", outputs))
        assert read == by_the_class("m", 1, "7", [OutputTarget("O")], outputs)


def test_classes_are_told_anew_for_every_response() -> None:
    targets = [OutputTarget("O", classes=2, labels=("a", "b", "c"))]
    responses = Responses("m", 1, targets)
    for scores in ([1.0, 2.0, 3.0], [3.0, 2.0, 1.0]):
        outputs = {"O": np.array([scores], np.float32)}
        read = ModelInferResponse.FromString(prebuilt(responses, "", outputs))
        assert read == by_the_class("m", 1, "", targets, outputs)


@pytest.mark.parametrize("shape", [(2, 3), (3, 2)])
def test_rows_that_are_a_view_of_a_batch_are_copied_in_order(shape: tuple[int, ...]) -> None:
    batch = np.arange(24, dtype=np.int64).reshape(4, 6).reshape(4, *shape)
    responses = Responses("m", 1, [OutputTarget("O")])
    for row in range(4):
        outputs = {"O": batch[row : row + 1]}
        read = ModelInferResponse.FromString(prebuilt(responses, "", outputs))
        assert read.raw_output_contents[0] == batch[row : row + 1].tobytes()
