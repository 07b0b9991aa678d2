"""L0_parameters: requests carry parameters and headers of their own."""

from __future__ import annotations

import numpy as np
from tritonclient import grpc
from tritonclient.grpc import InferenceServerClient

from .expectation import Suite, expect, refused, row, streamed

suite = Suite()
KINDS = {
    "texts": {"key1": "value1", "key2": "value2"},
    "whole numbers": {"key1": 1, "key2": -2},
    "a truth value and a text": {"key1": True, "key2": "value2"},
    "fractions": {"key1": 123.123, "key2": 321.321},
}
HEADERS = {"header_1": "value_1", "my_header_3": 'a "quoted" text with a backslash\\ '}
MODEL = "scale"


def accepted(client: InferenceServerClient, parameters: dict[str, object]) -> None:
    """Check that the answer is as without them, of a call and over a stream."""
    expected = [[2.0, 4.0, 6.0, 8.0]]
    asked = {"inputs": row(1, 2, 3, 4), "parameters": parameters}
    for result in (client.infer(MODEL, **asked), streamed(client, MODEL, **asked)):
        expect(result.as_numpy("OUTPUT0").tolist() == expected, result.get_response())


for kind, parameters in KINDS.items():
    suite.add(f"parameters may be {kind}", accepted, parameters)


@suite.expects("headers are taken with a call")
def headers(client: InferenceServerClient) -> None:
    found = client.infer(MODEL, row(1, 2, 3, 4), headers=HEADERS).as_numpy("OUTPUT0")
    expect(found.tolist() == [[2.0, 4.0, 6.0, 8.0]], found)


@suite.expects("the client refuses names that are its own")
def reserved_by_the_client(client: InferenceServerClient) -> None:
    for name in ("sequence_id", "sequence_start", "sequence_end", "priority", "binary_data_output"):
        refused(client.infer, MODEL, row(1, 2, 3, 4), parameters={name: 1})


@suite.expects("the server refuses unknown names that begin with triton_")
def reserved_by_the_server(client: InferenceServerClient) -> None:
    request = grpc.service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="INPUT0", datatype="FP32", shape=[1, 4])
    request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    request.parameters["triton_unknown"].string_param = "x"
    try:
        client._client_stub.ModelInfer(request)
    except Exception as error:
        expect("INVALID_ARGUMENT" in str(error), error)
    else:
        expect(condition=False, found="it was served")


@suite.expects("the model sees the parameters, and may return them")
def forwarded(client: InferenceServerClient) -> None:
    result = client.infer(MODEL, row(1, 2, 3, 4), parameters={"key1": "value1"})
    expect("value1" in str(result.get_response().parameters), "the answer has no parameters")


if __name__ == "__main__":
    suite.run()
