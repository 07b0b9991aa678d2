"""What is written without protobuf's classes is what they write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd.protobuf import delimited, varint


@given(st.integers(0, 2**64 - 1))
def test_a_varint_is_what_protobuf_writes(value: int) -> None:
    message = ModelInferRequest()
    message.parameters["a"].uint64_param = value
    assert varint(value) in message.SerializeToString()


@given(st.text(max_size=300))
def test_a_field_with_a_length_is_what_protobuf_writes(text: str) -> None:
    message = ModelInferRequest(id=text or "a")
    number = ModelInferRequest.ID_FIELD_NUMBER
    assert delimited(number, message.id.encode()) == message.SerializeToString()
