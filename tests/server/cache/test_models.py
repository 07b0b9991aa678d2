"""The cache with real models: text, classes, streams, shared memory, reloads, processes."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
from inferd.oip.v2.inference_pb2 import (
    ModelInferRequest,
    RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest,
    SystemSharedMemoryRegisterRequest,
)
from inferd.tensors import Array

from tests import models
from tests.server.cache.cached import YAML, how, results, statistics
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    infer_request,
    rows,
    running,
    running_split,
    samples,
)

LABELS = 'labels:\n  OUTPUT0: ["zero", "one", "two", "three"]\n'


def repository(folder: Path, yaml: str = YAML) -> Path:
    served = {
        "scaled": models.scale(2.0),
        "text": models.identity("BYTES", dims=("batch", 2)),
        "truth": models.identity("BOOL"),
    }
    return models.repository(folder, served, dict.fromkeys(served, yaml))


def scaled(value: float, version: str = "") -> ModelInferRequest:
    return infer_request("scaled", rows(value), version=version, ident=f"of {value}")


def text(*elements: bytes) -> ModelInferRequest:
    return infer_request("text", {"INPUT0": np.array([elements], dtype=object)})


def truth(*elements: bool) -> ModelInferRequest:
    return infer_request("truth", {"INPUT0": np.array([elements])})


def load(server: Running, model: str = "scaled") -> None:
    server.stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=model), timeout=PATIENCE)


def output(server: Running, request: ModelInferRequest) -> Array:
    return arrays(server.infer(request))["OUTPUT0"]


def test_text_is_compared_element_by_element(tmp_path: Path) -> None:
    with running(repository(tmp_path)) as server:
        for elements in ((b"a", b"bc"), (b"ab", b"c"), (b"abc", b""), (b"", b"abc")):
            assert how(server, text(*elements)) == ""
            assert how(server, text(*elements)) == "hit"
            assert output(server, text(*elements)).tolist() == [list(elements)]


def test_a_request_that_is_wrong_is_refused_each_time(tmp_path: Path) -> None:
    with running(repository(tmp_path)) as server:
        good = truth(True, False, True, True)
        assert [how(server, good), how(server, good)] == ["", "hit"]
        good.raw_input_contents[0] = bytes([1, 0, 1, 2])
        for _ in range(2):
            assert "BOOL" in server.refused(good).details()


def test_classes_are_another_answer_than_the_tensor_and_than_more_classes(tmp_path: Path) -> None:
    with running(repository(tmp_path, YAML + LABELS)) as server:
        request = scaled(1.0)
        assert how(server, request) == ""
        request.outputs.add(name="OUTPUT0")
        assert how(server, request) == "hit"
        for count in (1, 2):
            request.outputs[0].parameters["classification"].int64_param = count
            assert [how(server, request), how(server, request)] == ["", "hit"]
            assert output(server, request).tolist() == [
                [b"2.000000:0:zero", b"2.000000:1:one"][:count]
            ]


def test_other_labels_are_another_answer(tmp_path: Path) -> None:
    folder = repository(tmp_path, YAML + LABELS)
    request = scaled(1.0)
    request.outputs.add(name="OUTPUT0").parameters["classification"].int64_param = 1
    with running(folder) as server:
        assert output(server, request).tolist() == [[b"2.000000:0:zero"]]
        (folder / "scaled/model.yaml").write_text(YAML + LABELS.replace("zero", "nought"))
        load(server)
        assert output(server, request).tolist() == [[b"2.000000:0:nought"]]


def test_a_reload_of_other_bytes_drops_what_was_kept_and_of_the_same_bytes_does_not(
    tmp_path: Path,
) -> None:
    folder = repository(tmp_path)
    with running(folder) as server:
        assert [how(server, scaled(1.0)), how(server, scaled(1.0))] == ["", "hit"]
        load(server)
        assert how(server, scaled(1.0)) == "hit"
        models.save(models.scale(3.0), folder / "scaled/1/model.onnx")
        load(server)
        assert samples(server.metrics_port)["inferd_cache_entries"] == 0
        assert output(server, scaled(1.0)).tolist() == [[3.0] * 4]
        assert how(server, scaled(1.0)) == "hit"


def test_an_unloaded_model_keeps_nothing_and_answers_nothing(tmp_path: Path) -> None:
    with running(repository(tmp_path)) as server:
        assert how(server, scaled(1.0)) == ""
        assert how(server, text(b"a", b"b")) == ""
        server.stub.RepositoryModelUnload(RepositoryModelUnloadRequest(model_name="scaled"))
        assert samples(server.metrics_port)["inferd_cache_entries"] == 1
        assert "scaled" in server.refused(scaled(1.0)).details()
        assert how(server, text(b"a", b"b")) == "hit"


def test_a_model_without_a_cache_runs_every_request(tmp_path: Path) -> None:
    with running(repository(tmp_path, "")) as server:
        assert [how(server, scaled(1.0)), how(server, scaled(1.0))] == ["", ""]
        assert results(server, "scaled") == {}
        assert statistics(server, "scaled").cache_miss.count == 0


def test_messages_of_a_stream_are_merged_and_hit_too(tmp_path: Path) -> None:
    with running(repository(tmp_path)) as server:
        asked = [infer_request("scaled", rows(1.0), ident=str(n)) for n in range(50)]
        answers = list(server.stub.ModelStreamInfer(iter(asked), timeout=PATIENCE))
        assert sorted(int(a.infer_response.id) for a in answers) == list(range(50))
        assert {a.error_message for a in answers} == {""}
        assert all(arrays(a.infer_response)["OUTPUT0"][0, 0] == 2.0 for a in answers)
        assert all(a.infer_response.parameters["triton_final_response"] for a in answers)
        found = statistics(server, "scaled")
        assert (found.cache_hit.count, found.cache_miss.count) == (49, 1)


def test_each_front_process_has_its_own_cache_and_all_count_together(tmp_path: Path) -> None:
    folder = repository(tmp_path)
    with running_split(folder) as server:
        assert how(server, scaled(1.0)) == ""
        assert how(server, scaled(1.0)) == "hit"
        assert results(server, "scaled") == {"miss": 1, "hit": 1}
        found = statistics(server, "scaled")
        assert (found.cache_hit.count, found.cache_miss.count) == (1, 1)
        models.save(models.scale(3.0), folder / "scaled/1/model.onnx")
        load(server)
        assert output(server, scaled(1.0)).tolist() == [[3.0] * 4]
        assert samples(server.metrics_port)["inferd_cache_entries"] == 1


def test_shared_memory_is_read_anew_each_time(tmp_path: Path) -> None:
    segment = Path("/dev/shm") / f"inferd-test-{uuid.uuid4().hex}"
    segment.write_bytes(rows(1.0)["INPUT0"].tobytes())
    try:
        with running(repository(tmp_path)) as server:
            server.stub.SystemSharedMemoryRegister(
                SystemSharedMemoryRegisterRequest(name="r", key=f"/{segment.name}", byte_size=16)
            )
            request = scaled(1.0)
            del request.raw_input_contents[:]
            request.inputs[0].parameters["shared_memory_region"].string_param = "r"
            request.inputs[0].parameters["shared_memory_byte_size"].int64_param = 16
            assert output(server, request).tolist() == [[2.0] * 4]
            segment.write_bytes(rows(5.0)["INPUT0"].tobytes())
            assert output(server, request).tolist() == [[10.0] * 4]
            assert results(server, "scaled") == {}
    finally:
        segment.unlink()
