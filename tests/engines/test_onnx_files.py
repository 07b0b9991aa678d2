"""Model files that are whole load, weights beside them too; others are refused in a sentence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.model_files import ModelFiles
from inferd_engines.onnx import open_onnx
from onnx import helper, numpy_helper

from tests import models


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        open_onnx(tmp_path / "model.onnx", EngineOptions())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_said_not_to_be_whole(share: float, tmp_path: Path) -> None:
    whole = models.add_sub().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(EngineError, match=r"model\.onnx is not a whole ONNX file"):
        open_onnx(path, EngineOptions())


def test_a_file_of_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"<html>404</html>" * 100)
    with pytest.raises(EngineError, match="another format") as refused:
        open_onnx(path, EngineOptions())
    assert "\n" not in str(refused.value)


def test_weights_in_a_file_beside_are_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "1" / "model.onnx"
    path.parent.mkdir()
    onnx.save(
        models.no_batch(), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    assert (path.parent / "weights").stat().st_size > 0
    monkeypatch.chdir(tmp_path)
    engine = open_onnx(Path("1/model.onnx"), EngineOptions())
    result = engine.run({"INPUT0": np.ones((3, 4), dtype=np.float32)}, {}, 1)["OUTPUT0"]
    np.testing.assert_array_equal(result, np.full((3, 2), 4, dtype=np.float32))


def test_missing_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(
        models.no_batch(), path, save_as_external_data=True, location="weights", size_threshold=0
    )
    (tmp_path / "weights").unlink()
    with pytest.raises(EngineError, match="weights"):
        open_onnx(path, EngineOptions())


def weighted(folder: Path, proto: onnx.ModelProto) -> Path:
    """Save a model whose weights lie in a file beside it."""
    path = folder / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(proto, path, save_as_external_data=True, location="weights", size_threshold=1024)
    return path


def looked_up() -> onnx.ModelProto:
    """Rows of a table [4096, 64] of ones, by INPUT0 INT64 [batch]: it is read where it lies."""
    table = numpy_helper.from_array(np.ones((4096, 64), np.float32), "table")
    node = helper.make_node("Gather", ["table", "INPUT0"], ["OUTPUT0"])
    outputs = [models.tensor("OUTPUT0", "FP32", ("batch", 64))]
    return models.model([node], [models.tensor("INPUT0", "INT64", ("batch",))], outputs, [table])


def branching() -> onnx.ModelProto:
    """The same, in a branch that INPUT0 of at least 0 takes."""
    table = numpy_helper.from_array(np.ones((4096, 64), np.float32), "table")
    taken = helper.make_graph(
        [helper.make_node("Gather", ["table", "INPUT0"], ["found"])],
        "taken",
        [],
        [models.tensor("found", "FP32", ("batch", 64))],
        [table],
    )
    other = helper.make_graph(
        [
            helper.make_node("Cast", ["INPUT0"], ["number"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["number", "one"], ["other"]),
        ],
        "other",
        [],
        [models.tensor("other", "FP32", ("batch", None))],
    )
    constants = [
        numpy_helper.from_array(np.array([1]), "one"),
        numpy_helper.from_array(np.array(-1), "least"),
    ]
    nodes = [
        helper.make_node("ReduceMin", ["INPUT0"], ["smallest"], keepdims=0),
        helper.make_node("Greater", ["smallest", "least"], ["choice"]),
        helper.make_node("If", ["choice"], ["OUTPUT0"], then_branch=taken, else_branch=other),
    ]
    outputs = [models.tensor("OUTPUT0", "FP32", ("batch", None))]
    return models.model(nodes, [models.tensor("INPUT0", "INT64", ("batch",))], outputs, constants)


OVERWRITTEN = """
import sys
from pathlib import Path
import numpy as np
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx

path = Path(sys.argv[1])
engine = open_onnx(path, EngineOptions())
ids = {"INPUT0": np.arange(0, 4096, 7)}
for name in ("model.onnx", "weights"):
    with (path.parent / name).open("r+b") as file:
        if sys.argv[2] == "truncated":
            file.truncate(0)
        else:
            file.write(bytes((path.parent / name).stat().st_size))
assert (engine.run(ids, {}, 1)["OUTPUT0"] == 1).all()
print("as loaded")
"""


@pytest.mark.parametrize("how", ["truncated", "written over"])
@pytest.mark.parametrize("make", [looked_up, branching])
def test_a_loaded_model_does_not_depend_on_its_files(
    make: Callable[[], onnx.ModelProto], how: str, tmp_path: Path
) -> None:
    path = weighted(tmp_path, make())
    # In a process of its own: a mapped file that is truncated ends it by a signal.
    command = [sys.executable, "-c", OVERWRITTEN, str(path), how]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "as loaded\n"), ended.stderr


def test_weights_of_another_folder_are_never_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weighted(tmp_path, looked_up())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (path.parent / "weights").rename(elsewhere / "weights")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(EngineError, match="weights"):
        open_onnx(path, EngineOptions())


@pytest.mark.parametrize("location", ["./weights", "parts/weights"])
def test_weights_are_found_by_any_name_for_their_place(location: str, tmp_path: Path) -> None:
    path = weighted(tmp_path, looked_up())
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())
    (path.parent / location).parent.mkdir(exist_ok=True)
    (path.parent / "weights").rename(path.parent / location)
    engine = open_onnx(path, EngineOptions())
    assert (engine.run({"INPUT0": np.array([1])}, {}, 1)["OUTPUT0"] == 1).all()
    engine.close()


def test_instances_are_of_one_model_whatever_is_written_between_them(tmp_path: Path) -> None:
    path = weighted(tmp_path, looked_up())
    options = EngineOptions(files=ModelFiles(path))
    first = open_onnx(path, options)
    (path.parent / "weights").write_bytes(bytes(4096 * 64 * 4))
    second = open_onnx(path, options)
    for engine in (first, second):
        assert (engine.run({"INPUT0": np.array([1])}, {}, 1)["OUTPUT0"] == 1).all()
        engine.close()


@pytest.mark.parametrize("larger", ["model.onnx", "weights"])
def test_files_for_which_there_is_no_memory_are_not_read(tmp_path: Path, larger: str) -> None:
    path = weighted(tmp_path, looked_up())
    with (path.parent / larger).open("ab") as file:
        file.truncate(8 << 20)
    room = 15 << 20
    with pytest.raises(EngineError, match=r"there is no memory for .* 8 MiB so far") as refused:
        open_onnx(path, EngineOptions(files=ModelFiles(path, room=lambda: room)))
    assert str(path.parent / larger) in str(refused.value)
    assert str(refused.value).endswith("and 15 MiB are left")
