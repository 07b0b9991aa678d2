"""The bytes of a response, without a server."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest, ModelInferResponse
from inferd.tensors import DATATYPES, Array
from inferd_server.inference.response import OutputTarget, encode_response

from tests.server.inference.outputs import filled
from tests.server.serving import arrays

REQUEST = ModelInferRequest(model_name="m", id="an id")


def encoded(outputs: dict[str, Array]) -> ModelInferResponse:
    parts = encode_response(REQUEST, 3, [OutputTarget(name) for name in outputs], outputs)
    return ModelInferResponse.FromString(b"".join(parts))


@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DATATYPES)),
            st.lists(st.integers(0, 4), max_size=4).map(tuple),
            st.integers(0, 2**32),
        ),
        max_size=4,
    )
)
def test_a_response_parses_to_what_was_put_in(
    tensors: list[tuple[str, tuple[int, ...], int]],
) -> None:
    outputs = {f"O{i}": filled(*tensor) for i, tensor in enumerate(tensors)}
    response = encoded(outputs)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", "an id")
    returned = arrays(response)
    assert list(returned) == list(outputs)
    for (datatype, shape, _), name in zip(tensors, outputs, strict=True):
        assert returned[name].shape == shape
        assert returned[name].dtype == DATATYPES[datatype]
        assert returned[name].tolist() == outputs[name].tolist() or (
            returned[name].tobytes() == outputs[name].tobytes()
        )


def test_tensors_are_views_and_not_copies() -> None:
    array = np.arange(64, dtype=np.float32)
    parts = encode_response(REQUEST, 1, [OutputTarget("O")], {"O": array})
    assert any(np.shares_memory(np.frombuffer(part, np.uint8), array) for part in parts if part)


@pytest.mark.parametrize(
    "array", [np.arange(12, dtype=np.int32).reshape(3, 4).T, np.arange(9)[::2]]
)
def test_an_array_that_is_not_contiguous_is_written_in_row_major_order(array: Array) -> None:
    np.testing.assert_array_equal(arrays(encoded({"O": array}))["O"], array)
