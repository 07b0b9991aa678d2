"""Sealed and signed models as releases: added, promoted, saved and told of, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_client.cli import main
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.standard import open_onnx_cpu
from inferd_seal.trusted_files import Demands
from inferd_store import checking
from inferd_store.adding import Sources, draft_of
from inferd_store.errors import Refused
from inferd_store.promoting import checked
from inferd_store.release import About, Release
from inferd_store.store import Store, open_store

from tests import models
from tests.seal.sealing import Keys, make_keys
from tests.store.releases import BY, whole

Run = Callable[..., tuple[int, str, str]]
MARK = b"PLAINTEXT-OF-A-WEIGHT/32-BYTES!!"


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def version(root: Path, number: int = 1, factor: float = 2.0, name: str = "m") -> Path:
    """Lay out a version with a mark among its weights, and golden inputs."""
    proto = models.scale(factor)
    weight = onnx.numpy_helper.from_array(np.frombuffer(MARK * 99, np.float32), "marked")
    proto.graph.initializer.append(weight)
    folder = models.save(proto, root / name / str(number) / "model.onnx").parent
    rows = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.savez(folder / "golden.npz", INPUT0=rows, OUTPUT0=rows * factor)
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs an operation on a store: its exit code, and what it printed."""
    monkeypatch.setenv("INFERD_STORE", str(tmp_path / "store"))

    def operate(*arguments: object) -> tuple[int, str, str]:
        code = main(["models", *map(str, arguments)])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return operate


def flags(keys: Keys) -> list[str]:
    named = {"keys": keys.key, "signers": keys.public}
    return [*(f"--model-{name}={one}" for name, one in named.items()), "--require-models=sealed"]


def test_a_sealed_model_is_added_promoted_told_of_saved_and_restored(
    run: Run, keys: Keys, tmp_path: Path
) -> None:
    run("add", "m", version(tmp_path / "plain"))
    sealed = keys.seal(version(tmp_path, 2))
    assert run("add", "m", sealed, *flags(keys)) == (0, "m version 2 added\n", "")
    one = json.loads(run("show", "m", "2", "--json")[1])
    assert (one["sealed"], one["signed"], one["contents"]["operators"]) == (True, True, {"Mul": 1})
    assert {each["path"] for each in one["files"]} == {
        "golden.npz", "model.onnx", "model.sig", "seal.json", "seal.keys",
    }  # fmt: skip
    assert "sealed and signed" in run("show", "m", "2")[1]
    told = json.loads(run("diff", "m", "1", "2", "--json")[1])["differences"]
    assert (told["sealed"], told["signed"]) == ([False, True], [False, True])
    assert run("promote", "m", "2", *flags(keys), "--require", "latency_ms<=5000")[0] == 0
    assert run("backup", tmp_path / "backups")[0] == 0
    assert run("restore", tmp_path / "backups", "--store", tmp_path / "other")[0] == 0
    other = open_store(str(tmp_path / "other"))
    whole(other)
    assert other.release("m", "@production") == open_store(str(tmp_path / "store")).release(
        "m", "2"
    )


def test_the_variables_of_a_server_say_where_keys_are_too(
    run: Run, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFERD_MODEL_KEYS", keys.key)
    assert run("add", "m", keys.seal(version(tmp_path)))[0] == 0
    assert run("promote", "m", "1")[0] == 0
    monkeypatch.setenv("INFERD_MODEL_KEYS", f"file:{tmp_path}/nothing")
    assert "nothing cannot be read" in run("promote", "m", "1")[2]


def plain(folder: Path, _: Keys) -> Path:
    return folder


def tampered(folder: Path, keys: Keys) -> Path:
    content = bytearray((keys.seal(folder) / "model.onnx").read_bytes())
    content[-20] ^= 1
    (folder / "model.onnx").write_bytes(content)
    return folder


def golden_changed(folder: Path, keys: Keys) -> Path:
    keys.seal(folder)
    np.savez(folder / "golden.npz", INPUT0=np.ones((1, 4)), OUTPUT0=np.ones((1, 4)))
    return folder


def file_added(folder: Path, keys: Keys) -> Path:
    keys.seal(folder)
    (folder / "notes.txt").write_text("new")
    return folder


def other_file_tampered(folder: Path, keys: Keys) -> Path:
    (folder / "vocabulary.txt").write_text("a b c")
    content = bytearray((keys.seal(folder) / "vocabulary.txt").read_bytes())
    content[-1] ^= 1
    (folder / "vocabulary.txt").write_bytes(content)
    return folder


def file_alone(folder: Path, keys: Keys) -> Path:
    return keys.seal(folder) / "model.onnx"


def other_name(folder: Path, keys: Keys) -> Path:
    return keys.seal(version(folder.parents[1], name="other"))


def other_number(folder: Path, keys: Keys) -> Path:
    return keys.seal(version(folder.parents[1], 3))


def other_signer(folder: Path, keys: Keys) -> Path:
    other = make_keys(folder.parents[1], "other-")
    return Keys(keys.key, other.private, other.public).seal(folder)


def other_key(folder: Path, keys: Keys) -> Path:
    other = make_keys(folder.parents[1], "other-")
    return Keys(other.key, keys.private, keys.public).seal(folder)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (plain, "it has no seal.json"),
        (tampered, "part 1 of model.onnx was changed"),
        (golden_changed, "golden.npz is not the file that was sealed"),
        (file_added, "notes.txt is not among the files that were sealed"),
        (other_file_tampered, "part 1 of vocabulary.txt was changed"),
        (file_alone, "is sealed; give its folder"),
        (other_name, "it was sealed as model 'other', and lies here as 'm'"),
        (
            other_number,
            "it was sealed as version 3 of model 'm', and would become version 1, as which no "
            "server would take it: seal the plain files in m/1",
        ),
        (other_signer, "is by nobody who is trusted"),
        (other_key, "it is sealed with the key"),
    ],
)
def test_what_no_server_would_take_becomes_no_release(
    run: Run, keys: Keys, tmp_path: Path, make: Callable[[Path, Keys], Path], said: str
) -> None:
    code, out, error = run("add", "m", make(version(tmp_path), keys), *flags(keys))
    assert (code, out, error.count("\n")) == (1, "", 1)
    assert said in error
    assert not list((tmp_path / "store").glob("models/*"))


def test_without_a_key_it_is_told_how_one_is_given(run: Run, keys: Keys, tmp_path: Path) -> None:
    folder = keys.seal(version(tmp_path))
    cure = "--model-keys or INFERD_MODEL_KEYS says it, and for --url the server's model_keys"
    assert cure in run("add", "m", folder)[2]
    assert run("add", "m", folder, "--model-keys", keys.key)[0] == 0
    assert cure in run("promote", "m", "1")[2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--require-models", "all"), "any, signed or sealed was expected"),
        (("--require-models", "signed"), "model_signers names nobody"),
        (("--model-keys", "file:key", "--url", "localhost:1"), "the keys of its own settings"),
        (("--model-signers", "none.pem"), "the key none.pem cannot be read"),
    ],
)
def test_demands_that_nothing_could_meet_are_refused(
    run: Run, keys: Keys, tmp_path: Path, given: tuple[str, ...], said: str
) -> None:
    code, _, error = run("add", "m", keys.seal(version(tmp_path)), *given)
    assert (code, error.count("\n")) == (1, 1)
    assert said in error


def test_the_number_of_a_sealed_model_is_looked_at_when_it_becomes_visible(
    keys: Keys, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "store"), create=True)
    made = [
        checked("m", draft_of(folder), About(), Demands((keys.key,)))
        for folder in (keys.seal(version(tmp_path / which)) for which in ("first", "second"))
    ]
    assert added(store, *made[0]) == 1
    with pytest.raises(Refused, match="and would become version 2"):
        added(store, *made[1])
    assert list(store.record("m").versions) == [1]


def added(store: Store, release: Release, sources: Sources) -> int:
    return store.add("m", release, sources.files, BY).version


def test_no_plaintext_gets_to_a_disk_while_a_sealed_model_is_tried(
    run: Run, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealed = keys.seal(version(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    looked = []

    def look(path: Path, options: EngineOptions) -> Engine:
        engine = open_onnx_cpu(path, options)
        assert path.is_relative_to(tmp_path / "temporary")
        looked.append([one for one in tmp_path.rglob("*") if one.is_file() and marked(one)])
        return engine

    monkeypatch.setattr(checking, "open_onnx_cpu", look)
    assert run("add", "m", sealed, *flags(keys))[0] == 0
    assert run("promote", "m", "1", *flags(keys))[0] == 0
    assert looked == [[], []]
    assert not list((tmp_path / "temporary").iterdir())
    shutil.rmtree(sealed)
    assert marked(version(tmp_path) / "model.onnx")


def marked(path: Path) -> bool:
    return MARK in path.read_bytes()
