"""Requests that must be refused, each with its own status."""

from __future__ import annotations

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

from .case import refusal, row, run, simple_inputs, tensor


def unknown_model(client: InferenceServerClient) -> object:
    return refusal(client.infer, "absent", simple_inputs())


def unknown_version(client: InferenceServerClient) -> object:
    return refusal(client.infer, "simple", simple_inputs(), model_version="9")


def malformed_version(client: InferenceServerClient) -> object:
    return refusal(client.infer, "simple", simple_inputs(), model_version="new")


def wrong_shape(client: InferenceServerClient) -> object:
    short = tensor("INPUT0", np.zeros((1, 15), dtype=np.int32))
    return refusal(client.infer, "simple", [short, simple_inputs()[1]])


def wrong_datatype(client: InferenceServerClient) -> object:
    real = tensor("INPUT0", np.zeros((1, 16), dtype=np.float32))
    return refusal(client.infer, "simple", [real, simple_inputs()[1]])


def missing_input(client: InferenceServerClient) -> object:
    return refusal(client.infer, "simple", simple_inputs()[:1])


def unknown_input(client: InferenceServerClient) -> object:
    other = tensor("OTHER", np.zeros((1, 16), dtype=np.int32))
    return refusal(client.infer, "simple", [*simple_inputs(), other])


def unknown_output(client: InferenceServerClient) -> object:
    return refusal(client.infer, "simple", simple_inputs(), outputs=[InferRequestedOutput("OTHER")])


def batch_too_large(client: InferenceServerClient) -> object:
    batch = [tensor(name, np.zeros((33, 16), dtype=np.int32)) for name in ("INPUT0", "INPUT1")]
    return refusal(client.infer, "simple", batch)


def classes_of_strings(client: InferenceServerClient) -> object:
    words = tensor("INPUT0", np.array([[b"a", b"b"]], dtype=object))
    wanted = [InferRequestedOutput("OUTPUT0", class_count=1)]
    return refusal(client.infer, "strings", [words], outputs=wanted)


def strings_that_are_not_text(client: InferenceServerClient) -> object:
    words = tensor("INPUT0", np.array([[b"a", b"\xff"]], dtype=object))
    return refusal(client.infer, "joined", [words])


def payload_shorter_than_its_shape(client: InferenceServerClient) -> object:
    [item] = row(1, 2, 3, 4)
    # The client believes a shape that is changed after the data was given.
    item.set_shape([2, 4])
    return refusal(client.infer, "animals", [item])


if __name__ == "__main__":
    run(
        [
            *(unknown_model, unknown_version, malformed_version, wrong_shape, wrong_datatype),
            *(missing_input, unknown_input, unknown_output, batch_too_large),
            *(classes_of_strings, strings_that_are_not_text, payload_shorter_than_its_shape),
        ]
    )
