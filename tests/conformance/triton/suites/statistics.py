"""L0_server_status: metadata, and statistics of versions, models and all."""

from __future__ import annotations

import time

import numpy as np
from tritonclient.grpc import InferenceServerClient

from .expectation import Suite, counts, expect, inputs_of, refused, row, streamed

suite = Suite()
MODEL = "counted"


def named(client: InferenceServerClient, model: str = "", version: str = "") -> set[tuple]:
    """Return the names and versions of which there are statistics."""
    found = client.get_inference_statistics(model, version).model_stats
    return {(one.name, one.version) for one in found}


@suite.expects("the server's metadata has a name, a version and the extensions")
def server_metadata(client: InferenceServerClient) -> None:
    found = client.get_server_metadata()
    expect(found.name and found.version, found)
    wanted = {
        *("classification", "sequence", "model_repository", "schedule_policy"),
        *("model_configuration", "system_shared_memory", "binary_tensor_data", "statistics"),
    }
    expect(wanted <= set(found.extensions), wanted - set(found.extensions))


@suite.expects("the server's metadata names trace and CUDA shared memory")
def all_extensions(client: InferenceServerClient) -> None:
    found = set(client.get_server_metadata().extensions)
    expect({"trace", "cuda_shared_memory"} <= found, found)


@suite.expects("the server is called triton")
def server_name(client: InferenceServerClient) -> None:
    expect(client.get_server_metadata().name == "triton", client.get_server_metadata().name)


@suite.expects("a model's metadata has its versions, platform, inputs and outputs")
def model_metadata(client: InferenceServerClient) -> None:
    found = client.get_model_metadata(MODEL)
    expect((found.name, list(found.versions)) == (MODEL, ["1", "2"]), found)
    expect(found.platform == "onnxruntime_onnx", found.platform)
    (given,), (told,) = found.inputs, found.outputs
    expect((given.name, given.datatype, list(given.shape)) == ("INPUT0", "FP32", [-1, 4]), given)
    expect((told.name, told.datatype, list(told.shape)) == ("OUTPUT0", "FP32", [-1, 4]), told)


@suite.expects("metadata of an unknown model is refused by its name")
def unknown_model(client: InferenceServerClient) -> None:
    code = refused(client.get_model_metadata, "foo", text="'foo'")
    expect(code == "NOT_FOUND", code)


@suite.expects("metadata of an unknown version is refused")
def unknown_version(client: InferenceServerClient) -> None:
    code = refused(client.get_model_metadata, MODEL, "99")
    expect(code == "NOT_FOUND", code)


@suite.expects("statistics of an unknown model are refused")
def unknown_statistics(client: InferenceServerClient) -> None:
    refused(client.get_inference_statistics, "foo")


@suite.expects("statistics of an unknown model are INVALID_ARGUMENT")
def unknown_statistics_code(client: InferenceServerClient) -> None:
    code = refused(client.get_inference_statistics, "foo")
    expect(code == "INVALID_ARGUMENT", code)


@suite.expects("statistics of a version are its own alone")
def of_a_version(client: InferenceServerClient) -> None:
    expect(named(client, MODEL, "1") == {(MODEL, "1")}, named(client, MODEL, "1"))


@suite.expects("statistics without a version are of all versions")
def of_all_versions(client: InferenceServerClient) -> None:
    expect(named(client, MODEL) == {(MODEL, "1"), (MODEL, "2")}, named(client, MODEL))


@suite.expects("statistics without a model are of all models")
def of_all_models(client: InferenceServerClient) -> None:
    expect({(MODEL, "1"), (MODEL, "2"), ("texts", "1")} <= named(client), named(client))


@suite.expects("requests count for the version that served them")
def latest_counts(client: InferenceServerClient) -> None:
    before = [counts(client, MODEL, version) for version in "12"]
    client.infer(MODEL, row(1, 1, 1, 1))
    first, second = (
        counts(client, MODEL, version).since(old) for version, old in zip("12", before, strict=True)
    )
    expect((first.inferences, second.inferences) == (0, 1), (first, second))


@suite.expects("requests count for the version that they name")
def specific_counts(client: InferenceServerClient) -> None:
    before = counts(client, MODEL, "1")
    client.infer(MODEL, row(1, 1, 1, 1), "1")
    streamed(client, MODEL, inputs=row(1, 1, 1, 1), model_version="1")
    grown = counts(client, MODEL, "1").since(before)
    expect((grown.inferences, grown.executions) == (2, 2), grown)


@suite.expects("inferences count rows, and executions batches, by their size")
def batches(client: InferenceServerClient) -> None:
    before = counts(client, MODEL, "2")
    client.infer(MODEL, inputs_of(np.ones((3, 4), np.float32)))
    grown = counts(client, MODEL, "2").since(before)
    expect((grown.inferences, grown.executions, grown.batches) == (3, 1, {3: 1}), grown)


@suite.expects("the phases of a request add up to no more than its whole time")
def phases(client: InferenceServerClient) -> None:
    client.infer(MODEL, row(1, 1, 1, 1))
    (found,) = client.get_inference_statistics(MODEL, "2").model_stats
    stats = found.inference_stats
    parts = (stats.queue, stats.compute_input, stats.compute_infer, stats.compute_output)
    expect(all(part.count == stats.success.count for part in parts), stats)
    expect(0 < sum(part.ns for part in parts) <= stats.success.ns, stats)


@suite.expects("the time of the last inference is in milliseconds since 1970")
def last_inference(client: InferenceServerClient) -> None:
    client.infer(MODEL, row(1, 1, 1, 1))
    (found,) = client.get_inference_statistics(MODEL, "2").model_stats
    expect(abs(found.last_inference / 1000 - time.time()) < 60, found.last_inference)


@suite.expects("statistics of an unloaded model are refused")
def unloaded(client: InferenceServerClient) -> None:
    client.unload_model("counted_unloaded")
    try:
        refused(client.get_inference_statistics, "counted_unloaded")
    finally:
        client.load_model("counted_unloaded")


if __name__ == "__main__":
    suite.run()
