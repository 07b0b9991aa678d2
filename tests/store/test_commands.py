"""`inferd models` on a store: what it prints, what it refuses and in which words."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from time import time

import numpy as np
import onnx
import pytest
from inferd_client.cli import main
from inferd_store.backups import open_backups
from inferd_store.store import open_store

from tests import models
from tests.store.releases import BY, add, made, whole

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs an operation on a store: its exit code, and what it printed."""

    def operate(*arguments: object) -> tuple[int, str, str]:
        operation, *rest = map(str, arguments)
        code = main(["models", operation, "--store", str(tmp_path / "store"), *rest])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return operate


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return models.save(models.scale(2.0), tmp_path / "double.onnx")


def golden(path: Path, factor: float) -> Path:
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(path, INPUT0=rows, OUTPUT0=rows * factor)
    return path


def test_a_model_is_added_shown_promoted_and_rolled_back(
    run: Run, file: Path, tmp_path: Path
) -> None:
    answers = golden(tmp_path / "answers.npz", 2.0)
    flags = ["--golden", answers, "--metric", "accuracy=0.97", "--tag", "small", "--commit", "abc"]
    assert run("add", "m", file, *flags, "--who", "ann") == (0, "m version 1 added\n", "")
    assert run("add", "m", file, "--parent", 1)[0] == 0
    one = json.loads(run("show", "m", "1", "--json")[1])
    assert one["about"]["metrics"] == {"accuracy": 0.97}
    assert (one["about"]["author"], one["about"]["commit"]) == ("ann", "abc")
    assert one["contents"] == {
        "inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [None, 4]}],
        "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [None, 4]}],
        "opset": 21,
        "operators": {"Mul": 1},
    }
    promote = ("promote", "m", "1", "--require", "accuracy>=0.9", "--require", "latency_ms<=5000")
    assert run(*promote) == (0, "m: production is at version 1\n", "")
    assert run("promote", "m", "2")[1] == "m: production is at version 2, before at 1\n"
    assert run("rollback", "m", "--why", "slow")[1] == (
        "m: production is at version 1, before at 2\n"
    )
    assert run("list")[1].splitlines()[1].split() == ["m", "1,", "2", "production=1"]
    last = json.loads(run("log", "m", "--json")[1])[-1]
    assert (last["what"], last["version"], last["before"], last["why"]) == (
        "rollback", 1, 2, "slow",
    )  # fmt: skip
    differences = json.loads(run("diff", "m", "1", "2", "--json")[1])["differences"]
    assert set(differences) == {"size", "metrics.accuracy", "files.golden.npz"}


def test_a_version_is_promoted_only_if_it_passes(run: Run, file: Path) -> None:
    run("add", "m", file, "--metric", "accuracy=0.8", "--require", "accuracy>=0.7")
    code, out, error = run("promote", "m", "1", "--require", "accuracy>=0.9")
    assert (code, out) == (1, "")
    assert error == (
        "inferd models promote: version 1 of model 'm' is not promoted: "
        "accuracy is 0.8, and must be at least 0.9\n"
    )
    assert "latency_ms is not known" in run("promote", "m", "1", "--require", "latency_ms<=1")[2]
    assert run("promote", "m", "1")[0] == 0


def test_a_flag_makes_no_bound_of_a_release_weaker(run: Run, file: Path) -> None:
    run("add", "m", file, "--metric", "accuracy=0.8", "--require", "accuracy>=0.9")
    assert "must be at least 0.9" in run("promote", "m", "1", "--require", "accuracy>=0.1")[2]


def test_a_version_whose_golden_answers_have_changed_is_not_promoted(
    run: Run, file: Path, tmp_path: Path
) -> None:
    run("add", "m", file, "--golden", golden(tmp_path / "g.npz", 2.0))
    store = open_store(str(tmp_path / "store"))
    release = store.release("m", "1")[1]
    stored = next(one for one in release.files if one.path == "model.onnx")
    other = models.save(models.scale(3.0), tmp_path / "other.onnx")
    path = store.objects.path(f"blobs/sha256/{stored.digest}")
    assert path is not None
    path.write_bytes(other.read_bytes())
    code, _, error = run("promote", "m", "1")
    assert code == 1
    assert "model.onnx" in error
    assert "is not what its digest says" in error


def external(folder: Path) -> Path:
    """Write a model whose weights lie in a file beside it."""
    folder.mkdir()
    proto = models.identity("FP32")
    weights = np.ones(1024, np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "unused"))
    path = folder / "model.onnx"
    onnx.save_model(
        proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    return path


def test_weights_beside_a_model_are_added_with_it(run: Run, tmp_path: Path) -> None:
    assert run("add", "m", external(tmp_path / "m"))[0] == 0
    files = json.loads(run("show", "m", "1", "--json")[1])["files"]
    assert [one["path"] for one in files] == ["model.onnx", "weights.bin"]


def nothing(folder: Path) -> Path:
    return folder / "nothing.onnx"


def text(folder: Path) -> Path:
    path = folder / "text.onnx"
    path.write_text("no model at all")
    return path


def named_otherwise(folder: Path) -> Path:
    path = folder / "model.txt"
    path.write_text("x")
    return path


def empty(folder: Path) -> Path:
    path = folder / "empty.onnx"
    path.touch()
    return path


def folder_without_a_model(folder: Path) -> Path:
    (folder / "none").mkdir()
    return folder / "none"


def weights_missing(folder: Path) -> Path:
    path = external(folder / "m")
    (folder / "m" / "weights.bin").unlink()
    return path


def weights_linked(folder: Path) -> Path:
    path = weights_missing(folder)
    (folder / "m" / "weights.bin").symlink_to("/etc/passwd")
    return path


def weights_hard_linked(folder: Path) -> Path:
    path = external(folder / "m")
    os.link(folder / "m" / "weights.bin", folder / "other")
    return path


def weights_a_device(folder: Path) -> Path:
    path = weights_missing(folder)
    os.mkfifo(folder / "m" / "weights.bin")
    return path


def weights_above(folder: Path) -> Path:
    path = external(folder / "m")
    # As long as the name that it replaces.
    path.write_bytes(path.read_bytes().replace(b"weights.bin", b"../ghts.bin"))
    return path


def folder_with_a_linked_folder(folder: Path) -> Path:
    external(folder / "m")
    (folder / "m" / "linked").symlink_to("/etc")
    return folder / "m"


def wrong_config(folder: Path) -> Path:
    (folder / "m").mkdir()
    (folder / "m" / "model.yaml").write_text("max_batchsize: 3\n")
    return models.save(models.scale(2.0), folder / "m" / "model.onnx")


def wrong_golden(folder: Path) -> Path:
    (folder / "m").mkdir()
    golden(folder / "m" / "golden.npz", 3.0)
    models.save(models.scale(2.0), folder / "m" / "model.onnx")
    return folder / "m"


def golden_without_outputs(folder: Path) -> Path:
    wrong_golden(folder)
    np.savez(folder / "m" / "golden.npz", INPUT0=np.ones((1, 4), np.float32))
    return folder / "m"


def golden_of_another_shape(folder: Path) -> Path:
    wrong_golden(folder)
    np.savez(folder / "m" / "golden.npz", INPUT0=np.ones((1, 5)), OUTPUT0=np.ones((1, 5)))
    return folder / "m"


def reference(path: Path, columns: int = 4, rows: int = 100) -> Path:
    np.savez(path, INPUT0=np.ones((rows, columns), np.float32))
    return path


def reference_of(name: str, **given: int) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        models.save(models.scale(2.0), folder / "m" / "model.onnx")
        reference(folder / "m" / "reference.npz", **given)
        return folder / "m"

    make.__name__ = name
    return make


def reference_of_nothing(folder: Path) -> Path:
    reference_of("")(folder)
    np.savez(folder / "m" / "reference.npz", other=np.ones((100, 4)))
    return folder / "m"


def reference_of_one_array(folder: Path) -> Path:
    reference_of("")(folder)
    with (folder / "m" / "reference.npz").open("wb") as file:
        np.save(file, np.ones((100, 4)))
    return folder / "m"


def test_what_requests_are_compared_with_becomes_a_file_of_the_release(
    run: Run, file: Path, tmp_path: Path
) -> None:
    data = reference(tmp_path / "data.npz")
    assert run("add", "m", file, "--reference", data) == (0, "m version 1 added\n", "")
    files = json.loads(run("show", "m", "1", "--json")[1])["files"]
    assert [one["path"] for one in files] == ["model.onnx", "reference.npz"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (reference_of("columns", columns=5), "the reference input 'INPUT0' has shape"),
        (reference_of("rows", rows=99), "the same number of rows, 100 up"),
        (reference_of_nothing, "reference.npz has no input, such as 'INPUT0'"),
        (reference_of_one_array, "reference.npz is no file of arrays"),
        (nothing, "nothing.onnx does not exist"),
        (text, "cannot be served"),
        (named_otherwise, "is not named like a model"),
        (empty, "cannot be served"),
        (folder_without_a_model, "has no model.onnx"),
        (weights_missing, "weights.bin"),
        (weights_linked, "is a symbolic link"),
        (weights_hard_linked, "is a hard link"),
        (weights_a_device, "no such file|no plain file"),
        (weights_above, "outside its folder"),
        (folder_with_a_linked_folder, "is a symbolic link"),
        (wrong_config, "model.yaml cannot be used"),
        (wrong_golden, "'OUTPUT0' to the golden inputs is not as it was"),
        (golden_without_outputs, "has no output"),
        (golden_of_another_shape, "has shape"),
    ],
)
def test_what_can_be_no_release_is_refused_and_nothing_is_written(
    run: Run, tmp_path: Path, make: Callable[[Path], Path], said: str
) -> None:
    code, out, error = run("add", "m", make(tmp_path))
    assert (code, out) == (1, "")
    assert error.startswith("inferd models add: ")
    assert error.count("\n") == 1
    assert re.search(said, error)
    assert not list((tmp_path / "store").glob("models/*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "../m", "FILE"), "cannot be the name of a model"),
        (("add", ".m", "FILE"), "cannot be the name of a model"),
        (("add", "a/b", "FILE"), "cannot be the name of a model"),
        (("add", "m", "FILE", "--metric", "accuracy"), "NAME=VALUE was expected"),
        (("add", "m", "FILE", "--metric", "accuracy=good"), "a number was expected"),
        (("add", "m", "FILE", "--metric", "accuracy=nan"), "a number was expected"),
        (("add", "m", "FILE", "--require", "accuracy=1"), "a bound like"),
        (("add", "m", "FILE", "--parent", "one"), "the number of a version was expected"),
        (("add", "m", "FILE", "--parent", "7"), "never had a version 7"),
        (("show", "other"), "has no model 'other'"),
        (("show", "m", "x"), "is no version"),
        (("diff", "m", "1", "5"), "has no version 5; it has 1"),
        (("remove", "m", "one"), "is no version"),
        (("remove", "m", "2"), "has no version 2"),
        (("promote", "m", "2"), "has no version 2"),
        (("promote", "m", "1.0"), "is no version"),
        (("promote", "m", "1", "--to", "a/b"), "cannot be a label"),
        (("promote", "m", "1", "--require", "x"), "a bound like"),
        (("rollback", "m"), "has no label 'production'"),
        (("label", "m", "stable"), "a version was expected, or --remove"),
        (("label", "m", "stable", "3"), "has no version 3"),
        (("label", "m", "stable", "--remove"), "has no label 'stable'"),
        (("log", "other"), "has no model 'other'"),
        (("log", "../../etc"), "cannot be the name of a model"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence_and_changes_nothing(
    run: Run, tmp_path: Path, file: Path, arguments: tuple[str, ...], said: str
) -> None:
    run("add", "m", file)
    store = open_store(str(tmp_path / "store"))
    before = store.objects.get("models/m.json")
    code, out, error = run(*(file if one == "FILE" else one for one in arguments))
    assert (code, out) == (1, "")
    assert said in error
    assert error.count("\n") == 1
    assert store.objects.get("models/m.json") == before
    whole(store)


def test_a_store_is_saved_and_restored(
    run: Run, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("add", "m", file)
    run("promote", "m", "1")
    place, other = tmp_path / "backups", ("--store", tmp_path / "other")
    code, out, error = run("backup", place, "--why", "nightly")
    assert (code, error) == (0, "")
    assert re.fullmatch(r"backup \S+Z-[0-9a-f]{16}: 1 models, \S+B sent of \S+B\n", out)
    made = json.loads(run("backup", place, "m", "--verify", "--json")[1])
    assert (made["models"], made["sent"], made["asked"]) == (
        {"m": {"versions": [1], "labels": {"production": 1}}}, 0, ["m"],
    )  # fmt: skip
    listed = json.loads(run("backups", place, "--json")[1])
    assert [one["why"] for one in listed] == ["nightly", ""]
    assert run("backups", place)[1].splitlines()[1].split()[1:3] == ["all", "(1)"]
    assert run("backups", place, "--verify")[1].count("whole") == 2
    assert "1         restored" in run("restore", place, *other)[1]
    found = json.loads(run("restore", place, "m", "--backup", made["name"], *other, "--json")[1])
    assert found == {
        "backup": made["name"],
        "models": [{"name": "m", "versions": [1], "what": "same"}],
    }
    whole(open_store(str(tmp_path / "other")))


def test_damaged_backups_are_told_by_the_exit_code(run: Run, tmp_path: Path) -> None:
    add(made(tmp_path), tmp_path / "m")
    place = tmp_path / "backups"
    name = json.loads(run("backup", place, "--json")[1])["name"]
    path = place / "backups" / f"{name}.json"
    path.write_bytes(path.read_bytes()[:-9])
    code, out, _ = run("backups", place, "--verify")
    assert (code, "is damaged" in out) == (1, True)
    assert "is damaged" in run("backups", place)[1]
    code, out, error = run("restore", place, "--store", tmp_path / "other")
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert "is damaged: it is not what its name says" in error
    assert not (tmp_path / "other").exists()


def test_versions_are_removed_by_a_rule_once_that_is_meant(run: Run, tmp_path: Path) -> None:
    store = made(tmp_path)
    for _ in range(4):
        add(store, tmp_path / "m")
    store.move("m", "production", "1", BY)
    rule = ("prune", "m", "--keep-last", "2")
    lines = run(*rule)[1].splitlines()
    assert [line.split(maxsplit=2)[2] for line in lines[1:]] == [
        "kept: label production is at it",
        "would be removed; --apply does it",
        "kept: one of the newest 2",
        "kept: one of the newest 2",
    ]
    assert [one["kept"] for one in json.loads(run(*rule, "--apply", "--json")[1])][1] == ""
    assert [one["version"] for one in json.loads(run("show", "m", "--json")[1])] == [1, 3, 4]
    assert json.loads(run("log", "m", "--json")[1])[-1]["what"] == "remove"


def test_backups_are_removed_by_a_rule_once_that_is_meant(run: Run, tmp_path: Path) -> None:
    add(made(tmp_path), tmp_path / "m")
    place = tmp_path / "backups"
    for _ in range(2):
        run("backup", place)
    rule = ("backups", place, "--keep-last", "1")
    assert "would be removed" in run(*rule)[1].splitlines()[1]
    assert len(json.loads(run("backups", place, "--json")[1])) == 2
    assert "removed" in run(*rule, "--apply")[1].splitlines()[1]
    assert len(json.loads(run("backups", place, "--json")[1])) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("backup", "STORE"), "lie in each other"),
        (("backup", "STORE/backups"), "lie in each other"),
        (("backup", "FILE"), "is a file"),
        (("backup", "HERE"), "lie in each other"),
        (("backup", "PLACE", "x"), "has no model 'x'"),
        (("backup", "PLACE", "../m"), "cannot be the name of a model"),
        (("backup", "ftp://x"), "a folder, s3://, gs:// or az:// was expected"),
        (("backups", "HERE/nothing"), "has no backups"),
        (("backups", "STORE"), "is a store of models"),
        (("backups", "PLACE", "--keep-last", "0"), "1 or more was expected"),
        (("backups", "PLACE", "--apply"), "what is to be kept?"),
        (("restore", "HERE/nothing"), "has no backups"),
        (("restore", "PLACE", "x"), "has no backup of x"),
        (("restore", "PLACE", "--backup", "x"), "is no backup"),
        (
            ("restore", "PLACE", "--backup", "20260101T000000.000Z-0123456789abcdef"),
            "has no backup 2026",
        ),
        (("restore", "PLACE"), "--force replaces what is there"),
        (("restore", "PLACE", "--url", "localhost:1"), "give --store, not --url"),
        (("prune",), "what is to be kept?"),
        (("prune", "x", "--keep-last", "1"), "has no model 'x'"),
        (("prune", "m", "--keep-days", "-1"), "0 or more was expected"),
    ],
)
def test_what_cannot_be_saved_restored_or_removed_is_told_in_a_sentence(
    run: Run, tmp_path: Path, file: Path, arguments: tuple[str, ...], said: str
) -> None:
    store, place = made(tmp_path), tmp_path / "backups"
    add(store, tmp_path / "m")
    open_backups(str(place), time, create=True).make(store, (), BY)
    add(store, tmp_path / "m")
    before = sorted(path for path in tmp_path.rglob("*"))
    names = {
        "STORE": str(tmp_path / "store"), "PLACE": str(place), "FILE": str(file),
        "HERE": str(tmp_path),
    }  # fmt: skip
    head, _, rest = arguments[1].partition("/") if len(arguments) > 1 else ("", "", "")
    given = list(arguments)
    if head in names:
        given[1] = f"{names[head]}/{rest}".rstrip("/")
    code, out, error = run(*given)
    assert (code, out) == (1, "")
    assert said in error
    assert error.count("\n") == 1
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_label_does_not_move_to_a_version_that_is_gone(run: Run, file: Path) -> None:
    run("add", "m", file)
    run("add", "m", file)
    assert run("remove", "m", "2") == (0, "m version 2 removed\n", "")
    assert "has no version 2; it has 1" in run("label", "m", "stable", "2")[2]


def test_it_is_asked_which_store_is_meant(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", "m"]) == 1
    assert "which store?" in capsys.readouterr().err
    assert main(["models", "show", "m", "--store", "ftp://somewhere"]) == 1
    assert "a folder, s3://, gs:// or az:// was expected" in capsys.readouterr().err
