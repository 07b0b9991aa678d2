"""ModelInfer with raw contents: every datatype, outputs, parameters, and many at a time."""

from __future__ import annotations

import queue

import ml_dtypes
import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput, InferResult
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from .case import problem, refusal, row, run, simple_inputs, tensor, value

WHOLE = (np.uint8, np.uint16, np.uint32, np.uint64, np.int8, np.int16, np.int32, np.int64)
FLOATS = (np.float32, np.float64)
MANY = 100
ANSWER_TIMEOUT = 30.0


def every_number(client: InferenceServerClient) -> object:
    arrays = [
        np.array([[True, False]]),
        *(np.array([[np.iinfo(kind).min, np.iinfo(kind).max]], dtype=kind) for kind in WHOLE),
        *(np.array([[np.finfo(kind).min, np.finfo(kind).max]], dtype=kind) for kind in FLOATS),
    ]
    inputs = [tensor(f"INPUT{index}", array) for index, array in enumerate(arrays)]
    result = client.infer("numbers", inputs)
    found = [result.as_numpy(f"OUTPUT{index}") for index in range(len(arrays))]
    return {
        np_to_triton_dtype(array.dtype): bool(array.dtype == back.dtype and (array == back).all())
        for array, back in zip(arrays, found, strict=True)
    }


def halves(client: InferenceServerClient) -> object:
    arrays = [np.array([[1.5, -3.140625]], dtype=kind) for kind in (np.float16, ml_dtypes.bfloat16)]
    inputs = [tensor(f"INPUT{index}", array) for index, array in enumerate(arrays)]
    result = client.infer("halves", inputs)
    return {
        result.get_output(name).datatype: result.as_numpy(name).astype(np.float64).tolist()
        for name in ("OUTPUT0", "OUTPUT1")
    }


def strings(client: InferenceServerClient) -> object:
    array = np.array([[b"", b"a\x00b"], ["é".encode(), b"c" * 300]], dtype=object)
    return value(client.infer("strings", [tensor("INPUT0", array)]))


def several_inputs_and_outputs(client: InferenceServerClient) -> object:
    result = client.infer("simple", simple_inputs())
    return {name: value(result, name) for name in ("OUTPUT0", "OUTPUT1")}


def requested_outputs(client: InferenceServerClient) -> object:
    wanted = [InferRequestedOutput(name) for name in ("OUTPUT1", "OUTPUT0")]
    both = client.infer("simple", simple_inputs(), outputs=wanted).get_response(as_json=True)
    one = client.infer("simple", simple_inputs(), outputs=wanted[:1]).get_response(as_json=True)
    return [[output["name"] for output in answer["outputs"]] for answer in (both, one)]


def classification(client: InferenceServerClient) -> object:
    wanted = [InferRequestedOutput("OUTPUT0", class_count=2)]
    scores = np.array([[0.5, 0.25, 3.0, 1.0], [4.0, 0.0, 0.0, 5.0]], dtype=np.float32)
    return value(client.infer("animals", [tensor("INPUT0", scores)], outputs=wanted))


def request_id(client: InferenceServerClient) -> object:
    answer = client.infer("simple", simple_inputs(), request_id="seven").get_response()
    return [answer.id, answer.model_name, answer.model_version]


def model_versions(client: InferenceServerClient) -> object:
    asked = ("1", "2", "")
    return [value(client.infer("versions", row(1, 2, 3, 4), version)) for version in asked]


def parameters(client: InferenceServerClient) -> object:
    result = client.infer(
        "simple",
        simple_inputs(),
        sequence_id=3,
        sequence_start=True,
        priority=1,
        timeout=10_000_000,
        client_timeout=10.0,
        headers={"x-caller": "conformance"},
        parameters={"text": "a", "whole": 1, "yes": True},
    )
    return value(result)


def compression(client: InferenceServerClient) -> object:
    return {
        algorithm: value(client.infer("simple", simple_inputs(), compression_algorithm=algorithm))
        for algorithm in ("gzip", "deflate")
    }


def large_tensor(client: InferenceServerClient) -> object:
    # 16 MiB each way, where gRPC's own bound is 4.
    array = np.arange(4 * 2**20, dtype=np.float32)[np.newaxis]
    found = client.infer("large", [tensor("INPUT0", array)]).as_numpy("OUTPUT0")
    return bool((found == 2 * array).all())


def no_batch_dimension(client: InferenceServerClient) -> object:
    return value(client.infer("fixed", [tensor("INPUT0", np.eye(3, 4, dtype=np.float32))]))


def callbacks(client: InferenceServerClient) -> object:
    answers: queue.Queue[tuple[InferResult | None, InferenceServerException | None]]
    answers = queue.Queue()

    for index in range(MANY):
        client.async_infer(
            "simple",
            simple_inputs(index),
            lambda result, error: answers.put((result, error)),
            request_id=str(index),
        )
    found = {}
    for _ in range(MANY):
        result, error = answers.get(timeout=ANSWER_TIMEOUT)
        assert error is None, error
        found[result.get_response().id] = value(result)[0][0]
    return found


def callback_with_error(client: InferenceServerClient) -> object:
    answers: queue.Queue[InferenceServerException] = queue.Queue()
    client.async_infer("absent", simple_inputs(), lambda result, error: answers.put(error))
    return problem(answers.get(timeout=ANSWER_TIMEOUT))


def elapsed_deadline(client: InferenceServerClient) -> object:
    # 64 MiB cannot be there and back in a millisecond.
    item = tensor("INPUT0", np.zeros((1, 16 * 2**20), dtype=np.float32))
    return refusal(client.infer, "large", [item], client_timeout=0.001)


if __name__ == "__main__":
    run(
        [
            *(every_number, halves, strings, several_inputs_and_outputs, requested_outputs),
            *(classification, request_id, model_versions, parameters, compression),
            *(large_tensor, no_batch_dimension),
            *(callbacks, callback_with_error, elapsed_deadline),
        ]
    )
