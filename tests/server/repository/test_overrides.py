"""Callers load models with a configuration and files of their own, until the next load without."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest
from inferd.oip.v2 import inference_pb2 as oip
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_server.errors import InvalidInput, MemoryBudgetExceeded, ModelNotReady
from inferd_server.repository.overrides import PREFIX, Override, Overrides, sweep

from tests import models
from tests.server.serving import (
    PATIENCE,
    Running,
    arrays,
    failure,
    infer_request,
    rows,
    running,
    running_replicas,
    running_split,
)
from tests.server.supervisor.split import NOT_SERVING, SERVING, Readiness, split_process

Start = Callable[..., AbstractContextManager[Running]]
SCALED_BY_7 = models.scale(7.0).SerializeToString()


@pytest.fixture(
    params=[running, running_split, pytest.param(running_replicas, marks=pytest.mark.slow)],
    ids=["one process", "split", "replicas"],
)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    start: Start = request.param
    models.repository(
        tmp_path, {"scaled": {1: models.scale(2.0), 2: models.scale(3.0)}}, {"scaled": "labels: {}"}
    )
    with start(tmp_path) as server:
        yield server


def load(
    server: Running,
    model: str = "scaled",
    config: Mapping[str, object] | str | None = None,
    files: Mapping[str, bytes] | None = None,
) -> None:
    request = oip.RepositoryModelLoadRequest(model_name=model)
    if config is not None:
        text = config if isinstance(config, str) else json.dumps(config)
        request.parameters["config"].string_param = text
    for path, data in (files or {}).items():
        request.parameters[path].bytes_param = data
    server.stub.RepositoryModelLoad(request, timeout=PATIENCE)


def factor(server: Running, model: str = "scaled", version: str = "") -> float:
    answer = server.infer(infer_request(model, rows(1.0), version=version))
    return float(arrays(answer)["OUTPUT0"][0, 0])


def max_batch_size(server: Running, model: str = "scaled") -> int:
    request = oip.ModelConfigRequest(name=model)
    return int(server.stub.ModelConfig(request, timeout=PATIENCE).config.max_batch_size)


def test_a_configuration_holds_until_the_next_load_without(served: Running) -> None:
    load(served, config={"max_batch_size": 5, "versions": [1], "priority_queue_rows": {"1": 7}})
    assert (max_batch_size(served), factor(served)) == (5, 2.0)
    load(served, config="{}")
    assert (max_batch_size(served), factor(served)) == (32, 3.0)
    load(served, config={"max_batch_size": 4})
    load(served)
    assert (max_batch_size(served), factor(served)) == (32, 3.0)


def test_files_take_the_place_of_the_folder_until_the_next_load_without(served: Running) -> None:
    load(served, config="{}", files={"file:9/model.onnx": SCALED_BY_7})
    assert (factor(served), factor(served, version="9")) == (7.0, 7.0)
    error = served.refused(infer_request("scaled", rows(1.0), version="2"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    load(served)
    assert factor(served) == 3.0


def test_a_model_that_no_folder_has_is_loaded_from_files(served: Running) -> None:
    load(served, "new", "{}", {"file:1/model.onnx": SCALED_BY_7})
    assert factor(served, "new") == 7.0
    error = failure(lambda: load(served, "new"))
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert factor(served, "new") == 7.0


BAD: list[tuple[Mapping[str, object] | str | None, Mapping[str, bytes], str]] = [
    ("no json", {}, "config: "),
    ("[]", {}, "config: "),
    ({"max_batch_size": "many"}, {}, "max_batch_size: Input should be a valid integer"),
    ({"dynamic_batching": {}}, {}, "dynamic_batching: unknown; known are custom_ops"),
    ({"versions": [3]}, {}, "versions names 3, and there are 1, 2"),
    ({"format": {"NOPE": "NCHW"}}, {}, "there is no input 'NOPE'"),
    (None, {"file:1/model.onnx": SCALED_BY_7}, "files are given without 'config'"),
    ("{}", {"file:1/model.onnx": b"no model"}, "version 1 of model 'scaled' cannot be loaded"),
    ("{}", {"file:model.onnx": SCALED_BY_7}, "does not lie in a version's folder"),
    ("{}", {"file:1/../../model.onnx": SCALED_BY_7}, "does not lie in a version's folder"),
    ("{}", {"file:/1/model.onnx": SCALED_BY_7}, "does not lie in a version's folder"),
    ("{}", {"model.onnx": SCALED_BY_7}, "parameter 'model.onnx' is none of a load"),
]


def test_what_cannot_be_loaded_is_refused_with_the_reason_and_changes_nothing(
    served: Running,
) -> None:
    load(served, config={"max_batch_size": 6})
    for config, files, said in BAD:
        error = failure(lambda: load(served, config=config, files=files))  # noqa: B023
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert error.details().startswith("failed to load 'scaled'")
        assert said in error.details()
        assert (max_batch_size(served), factor(served)) == (6, 3.0)


def test_callers_who_may_not_load_may_not_override(tmp_path: Path) -> None:
    models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with running(tmp_path, model_control="off") as server:
        error = failure(lambda: load(server, config="{}"))
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED


def test_overrides_outlive_the_worker(tmp_path: Path) -> None:
    models.repository(tmp_path, {"scaled": models.scale(2.0), "other": models.scale(3.0)})
    with split_process(tmp_path, "--fronts", "1") as server, server.channel() as channel:
        talk = Running(None, 0, 0, channel, GRPCInferenceServiceStub(channel))
        load(talk, config="{}", files={"file:1/model.onnx": SCALED_BY_7})
        load(talk, "other", {"max_batch_size": 3})
        readiness = Readiness(server)
        readiness.wait_for(SERVING)
        server.kill("worker")
        readiness.wait_for(NOT_SERVING)
        readiness.wait_for(SERVING)
        readiness.close()
        assert (factor(talk), max_batch_size(talk, "other")) == (7.0, 3)


def override(*, size: int = 1, path: str = "1/model.onnx") -> Override:
    return Override("{}", {path: b"x" * size})


def test_files_are_written_beside_each_other_and_gone_at_the_end(tmp_path: Path) -> None:
    kept = Overrides(most=10, temporary=tmp_path)
    first = kept.place("m", override(size=4))
    kept.keep("m", first)
    second = kept.place("m", override(size=5))
    kept.keep("m", second)
    assert [path.read_bytes() for path in tmp_path.rglob("model.onnx")] == [b"xxxxx"]
    kept.keep("m", None)
    assert not list(tmp_path.rglob("model.onnx"))
    kept.close()
    assert not list(tmp_path.iterdir())


def test_the_files_of_all_models_are_bounded(tmp_path: Path) -> None:
    kept = Overrides(most=10, temporary=tmp_path)
    kept.keep("m", kept.place("m", override(size=6)))
    with pytest.raises(MemoryBudgetExceeded, match="5 bytes, and 6 are kept; 10 may be in all"):
        kept.place("n", override(size=5))


def test_files_of_models_that_are_loading_count_as_well(tmp_path: Path) -> None:
    kept = Overrides(most=10, temporary=tmp_path)
    loading = kept.place("m", override(size=6))
    with pytest.raises(MemoryBudgetExceeded, match="5 bytes, and 6 are kept"):
        kept.place("n", override(size=5))
    loading.discard()
    kept.place("n", override(size=5))


def test_what_a_killed_process_left_is_deleted_and_what_a_living_one_has_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / f"{PREFIX}dead" / "m").mkdir(parents=True)
    living = Overrides(temporary=tmp_path)
    living.keep("m", living.place("m", override()))
    assert not (tmp_path / f"{PREFIX}dead").exists()
    sweep(tmp_path)
    assert len(list(tmp_path.rglob("model.onnx"))) == 1
    living.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelNotReady, match="its files cannot be written: No such file"):
        Overrides(temporary=tmp_path / "nowhere").place("m", override())


@pytest.mark.parametrize(
    "path",
    ["", "1", "1/", "0/a", "01/a", "a/1", "1/..", "1/./a", "1/a/../b", "1//a", "1/" + "a" * 300],
)
def test_paths_that_lead_elsewhere_are_refused(path: str) -> None:
    with pytest.raises(InvalidInput, match="does not lie in a version's folder"):
        override(path=path).check("m")


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a\0b", "a" * 256])
def test_names_that_no_folder_can_have_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be the name of a model"):
        override().check(name)


def test_names_longer_than_a_folder_can_have_are_refused_by_their_bytes() -> None:
    with pytest.raises(InvalidInput, match="cannot be the name of a model"):
        override().check("\N{LATIN SMALL LETTER O WITH DIAERESIS}" * 200)


@pytest.mark.parametrize("within", ["1/a/b", "1/a/b/c"])
def test_a_file_within_a_file_is_refused(within: str) -> None:
    for files in ({"1/a": b"", within: b""}, {within: b"", "1/a": b""}):
        with pytest.raises(InvalidInput, match=f"'{within}' lies in '1/a', which is a file"):
            Override("{}", files).check("m")


def test_files_that_could_not_be_written_leave_nothing(tmp_path: Path) -> None:
    kept = Overrides(temporary=tmp_path)
    first = Override("{}", {"1/model.onnx": b"x", "1/weights": b"x"})
    with pytest.MonkeyPatch.context() as patch:
        write = Path.write_bytes

        def full(path: Path, data: bytes) -> int:
            if path.name == "model.onnx":
                return write(path, data)
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ModelNotReady, match="No space left on device"):
            kept.place("m", first)
    assert not list(tmp_path.rglob("*.onnx"))


def test_the_number_of_files_is_bounded() -> None:
    with pytest.raises(InvalidInput, match="65 files are given; at most 64 may be"):
        Override("{}", {f"1/{number}": b"" for number in range(65)}).check("m")
