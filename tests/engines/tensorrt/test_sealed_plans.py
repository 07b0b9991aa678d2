"""Plans of sealed models: sealed in the store, built without a disk, opened like any other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.model_files import ModelFiles
from inferd_engines.tensorrt.background import build_apart
from inferd_engines.tensorrt.errors import BuildFailed, PlanRefused
from inferd_engines.tensorrt.key import Host as Place
from inferd_engines.tensorrt.key import key_of
from inferd_engines.tensorrt.opener import Wanted
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import Library
from inferd_engines.tensorrt.store import PlanStore
from inferd_seal.folder import rotate
from inferd_seal.trusted_files import Demands, reader_of
from inferd_server.settings.model import shipped_models

from tests import models
from tests.engines.tensorrt.bench import PLAN
from tests.engines.tensorrt.conftest import RTX
from tests.engines.tensorrt.host import OPTIONS, ROW, Host
from tests.seal.sealing import Keys, make_keys


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return make_keys(tmp_path)


def files_of(model: Path, keys: Keys) -> ModelFiles:
    """Return what reads a sealed model."""
    demands = Demands((keys.key,))
    return ModelFiles(model, reader=reader_of(demands, model.parents[1].name, 1, model))


class SealedHost(Host):
    """A host whose model is sealed, and so are the plans that it builds."""

    def __init__(self, folder: Path, keys: Keys, *, rtx: bool = False) -> None:
        super().__init__(folder, rtx=rtx)
        self.keys = keys
        keys.seal(self.model.parent)

    def publish(self, wanted: Wanted) -> None:
        super().publish(wanted)
        self.store.forget(wanted.key)
        assert wanted.files is not None
        plan = wanted.files.protect(wanted.key.digest, PLAN)
        self.store.publish(wanted.key, plan, {})

    def open(self, **extra: str) -> Engine:
        options = replace(OPTIONS, extra={**OPTIONS.extra, **extra})
        return self.opener(self.model, replace(options, files=files_of(self.model, self.keys)))


@pytest.fixture(params=[False, True], ids=["tensorrt", "rtx"])
def host(request: pytest.FixtureRequest, tmp_path: Path, keys: Keys) -> Iterator[SealedHost]:
    made = SealedHost(tmp_path, keys, rtx=request.param)
    yield made
    assert made.bench.standin.depth == 0
    assert made.bench.standin.leaks() == {}


def written(folder: Path) -> bytes:
    """Return all that lies in a store."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_plan_of_a_sealed_model_serves_and_is_nowhere_in_the_clear(
    host: SealedHost, tmp_path: Path
) -> None:
    engine = host.open_built()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    engine.close()
    assert PLAN not in written(tmp_path / "plans")
    # What TensorRT-RTX compiled of it is made of it, too.
    assert not (tmp_path / "plans/runtime").exists()


def test_a_plan_in_the_clear_is_not_taken_for_a_sealed_model(host: SealedHost) -> None:
    host.open_built().close()
    (folder,) = (path.parent for path in host.store.folder.glob("*/plan"))
    key = replace(wanted(host), files=None).key
    host.store.forget(key)
    host.store.publish(key, PLAN, {})
    assert "the plan was built and is not in the store" in host.refusal()
    assert not folder.exists()


def wanted(host: SealedHost) -> Wanted:
    """Return what a host asked for, once more."""
    from inferd_engines.tensorrt.opener import Gpu, wanted_on
    from inferd_engines.tensorrt.options import options_from

    gpu = Gpu(host.bench.library, host.bench.device)
    return wanted_on(gpu, host.model, options_from(OPTIONS.extra))


def test_a_plan_outlives_another_key_of_its_model(host: SealedHost, tmp_path: Path) -> None:
    host.open_built().close()
    other = make_keys(tmp_path, "other-")
    rotate(host.model.parent, [host.keys.key], [other.key])
    host.keys = other
    engine = host.open()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    engine.close()


def test_a_precision_that_takes_a_disk_is_refused(host: SealedHost) -> None:
    with pytest.raises(BuildFailed, match="converted to fp16 on a disk only"):
        host.open(**{"tensorrt.precision": "fp16"})


def test_weights_beside_a_sealed_model_are_refused(tmp_path: Path, keys: Keys) -> None:
    host = SealedHost(tmp_path / "beside", keys)
    folder = tmp_path / "w/1"
    folder.mkdir(parents=True)
    how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0}
    onnx.save(models.scale(2.0), folder / "model.onnx", **how)
    keys.seal(folder)
    options = EngineOptions(files=files_of(folder / "model.onnx", keys))
    with pytest.raises(PlanRefused, match="keeps weights beside it"):
        host.opener(folder / "model.onnx", options)


def test_a_real_plan_is_built_through_pipes_and_sealed(
    library: Library, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(RTX), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "digits/1"
    folder.mkdir(parents=True)
    model = folder / "model.onnx"
    model.write_bytes((shipped_models() / "digits/1/model.onnx").read_bytes())
    keys.seal(folder)
    options = BuildOptions(buckets=(1, 4), targets=("8.9",))
    key = key_of(model, Place("tensorrt_rtx", library.version, ""), options)
    files = files_of(model, keys)
    build_apart(tmp_path / "plans", Wanted(model, key, options, files))
    stored = PlanStore(tmp_path / "plans").find(key)
    assert stored is not None
    assert stored.manifest["sealed"] is True
    plan = files.reveal(key.digest, stored.data)
    assert len(plan) > model.stat().st_size / 4
    piece = plan[len(plan) // 2 :][:64]
    assert piece not in written(tmp_path / "plans")
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_command_says_that_a_model_is_sealed(
    library: Library, tmp_path: Path, keys: Keys, capsys: pytest.CaptureFixture[str]
) -> None:
    from inferd_client.cli import main

    del library
    folder = tmp_path / "m/1"
    models.save(models.scale(2.0), folder / "model.onnx")
    keys.seal(folder)
    assert main(["build", str(folder / "model.onnx"), "--output", str(tmp_path / "p")]) == 1
    assert "is sealed: a server that has its key builds the plan" in capsys.readouterr().err
