"""Bad requests over a real socket: each is refused with its reason, and nothing else happens."""

from __future__ import annotations

import grpc
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferResponse, ModelStreamInferResponse
from inferd.tensors import DATATYPES

from tests.server.inference.bad_requests import BAD, Bad
from tests.server.inference.served import assert_still_serves, simple
from tests.server.serving import PATIENCE, Running, arrays, failure, infer_request

EXPECTED = {
    grpc.StatusCode.INVALID_ARGUMENT: {"InvalidInput"},
    grpc.StatusCode.NOT_FOUND: {"ModelNotFound", "VersionNotFound", "RegionNotFound"},
}
METHOD = "/inference.GRPCInferenceService/ModelInfer"

each_bad = pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)


@each_bad
def test_a_bad_request_is_refused_with_a_reason(served: Running, bad: Bad) -> None:
    error = served.refused(bad.request)
    assert (error.code(), error.details()) == (bad.code, error.details())
    for words in bad.words:
        assert words in error.details()
    assert dict(error.trailing_metadata())["inferd-error"] in EXPECTED[bad.code]
    assert_still_serves(served)


@each_bad
def test_a_bad_request_in_a_stream_is_answered_and_the_stream_goes_on(
    served: Running, bad: Bad
) -> None:
    bad.request.id = "the bad one"
    good = simple()
    good.id = "the good one"
    answers = {
        answer.infer_response.id: answer
        for answer in served.stub.ModelStreamInfer(iter([bad.request, good]), timeout=PATIENCE)
    }
    refused = answers["the bad one"]
    for words in bad.words:
        assert words in refused.error_message
    names = EXPECTED[bad.code]
    assert refused.infer_response.parameters["inferd_error"].string_param in names
    assert not refused.infer_response.outputs
    assert answers["the good one"].error_message == ""
    assert len(answers["the good one"].infer_response.outputs) == 2


def test_every_bad_request_at_once_in_one_stream(served: Running) -> None:
    requests = []
    for number, bad in enumerate(BAD):
        bad.request.id = str(number)
        requests.append(bad.request)
    answers = list(served.stub.ModelStreamInfer(iter(requests), timeout=PATIENCE))
    assert sorted(int(answer.infer_response.id) for answer in answers) == list(range(len(BAD)))
    assert all(answer.error_message for answer in answers)


def test_a_message_above_the_limit_is_refused(served: Running) -> None:
    request = infer_request("big", {"INPUT0": np.zeros((1, 21 * 2**20), dtype=np.float32)})
    error = served.refused(request)
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert_still_serves(served)


def test_random_bytes_are_refused_or_answered_and_hurt_nobody(served: Running) -> None:
    call = served.channel.unary_unary(METHOD)
    good = simple().SerializeToString()

    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.binary(max_size=80) | st.integers(0, len(good)).map(lambda end: good[:end]))
    def check(data: bytes) -> None:
        try:
            ModelInferResponse.FromString(call(data, timeout=PATIENCE))
        except grpc.RpcError as error:
            assert error.code() in EXPECTED, error.details()  # noqa: PT017 only some examples fail

    check()
    assert_still_serves(served)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_request_never_breaks_the_server(served: Running, data: st.DataObject) -> None:
    damaged = bytearray(simple().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        served.channel.unary_unary(METHOD)(bytes(damaged), timeout=PATIENCE)
    except grpc.RpcError as error:
        assert error.code() in EXPECTED, error.details()  # noqa: PT017 only some examples fail


def test_bytes_that_are_no_message_say_so(served: Running) -> None:
    error = failure(lambda: served.channel.unary_unary(METHOD)(b"\xff\xff", timeout=PATIENCE))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "not a ModelInferRequest" in error.details()


def test_bytes_that_are_no_message_do_not_end_a_stream(served: Running) -> None:
    stream = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    sent = [b"\xff\xff", simple().SerializeToString()]
    answers = [
        ModelStreamInferResponse.FromString(data) for data in stream(iter(sent), timeout=PATIENCE)
    ]
    refused, answered = sorted(answers, key=lambda answer: not answer.error_message)
    assert "not a ModelInferRequest" in refused.error_message
    assert len(answered.infer_response.outputs) == 2


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "BF16"])
def test_nan_and_infinities_pass_through(served: Running, datatype: str) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, -0.0]]).astype(DATATYPES[datatype])
    outputs = arrays(served.infer(infer_request(f"rows_{datatype}", {"INPUT0": values})))
    assert outputs["OUTPUT0"].tobytes() == values.tobytes()
