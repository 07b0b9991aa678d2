"""Plans on disk: whole or not there, of what was asked for, and built once."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from inferd_engines.tensorrt.errors import PlanRefused
from inferd_engines.tensorrt.key import Gpu, Host, PlanKey, key_of
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range
from inferd_engines.tensorrt.store import MANIFEST, PLAN, PlanStore

HOST = Host("tensorrt", "11.1.0.2", "13.3", Gpu("NVIDIA H100", "9.0", 132))
OPTIONS = BuildOptions()
DATA = b"a plan" * 1000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "1/model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def key(model: Path) -> PlanKey:
    return key_of(model, HOST, OPTIONS)


@pytest.fixture
def store(tmp_path: Path) -> PlanStore:
    return PlanStore(tmp_path / "plans")


def place(tmp_path: Path, key: PlanKey, name: str) -> Path:
    return tmp_path / "plans" / key.digest / name


def test_a_plan_is_found_as_it_was_published_with_what_it_is_of(
    store: PlanStore, key: PlanKey
) -> None:
    assert store.find(key) is None
    store.publish(key, DATA, {"seconds": 3})
    found = store.find(key)
    assert found is not None
    assert found.data == DATA
    assert found.manifest["seconds"] == 3
    assert found.manifest["key"]["host"]["gpu"]["name"] == "NVIDIA H100"


@pytest.mark.parametrize(
    "change",
    [
        lambda model: key_of(model, replace(HOST, version="11.1.0.3"), OPTIONS),
        lambda model: key_of(model, replace(HOST, cuda="13.4"), OPTIONS),
        lambda model: key_of(model, replace(HOST, flavour="tensorrt_rtx"), OPTIONS),
        lambda model: key_of(model, replace(HOST, gpu=Gpu("NVIDIA H100", "9.0", 114)), OPTIONS),
        lambda model: key_of(model, HOST, replace(OPTIONS, precision="fp16")),
        lambda model: key_of(model, HOST, replace(OPTIONS, buckets=(1, 2))),
        lambda model: key_of(model, HOST, replace(OPTIONS, ranges={"a": Range((1,), (2,), (3,))})),
    ],
)
def test_whatever_changes_a_plan_changes_its_key(
    model: Path, key: PlanKey, change: Callable[[Path], PlanKey]
) -> None:
    assert change(model).digest != key.digest
    assert change(model).digest == change(model).digest


def test_the_models_bytes_and_those_of_its_weights_are_in_the_key(
    model: Path, key: PlanKey
) -> None:
    (model.parent / "weights.bin").write_bytes(b"1")
    with_weights = key_of(model, HOST, OPTIONS)
    (model.parent / "weights.bin").write_bytes(b"2")
    other_weights = key_of(model, HOST, OPTIONS)
    model.write_bytes(b"another model")
    another = key_of(model, HOST, OPTIONS)
    digests = {found.digest for found in (key, with_weights, other_weights, another)}
    assert len(digests) == 4


def test_a_model_that_was_moved_has_the_same_key(model: Path, key: PlanKey) -> None:
    moved = model.parent.rename(model.parent.with_name("2"))
    assert key_of(moved / model.name, HOST, OPTIONS).digest == key.digest


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        (PLAN, lambda data: data[:-1], "bytes and should have"),
        (PLAN, lambda data: data[:-1] + b"X", "not those that were written"),
        (PLAN, lambda data: b"", "bytes and should have"),
        (MANIFEST, lambda data: data[:-2], "Expecting"),
        (MANIFEST, lambda data: b"[]", "not one"),
        (MANIFEST, lambda data: b"\xff", "codec"),
        (MANIFEST, lambda data: data.replace(b"11.1.0.2", b"10.9.0.1"), "host.version is 10.9.0.1"),
    ],
)
def test_a_damaged_plan_is_removed_with_the_reason_and_can_be_published_anew(
    store: PlanStore,
    key: PlanKey,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
    damage: Callable[[bytes], bytes],
    why: str,
) -> None:
    store.publish(key, DATA, {})
    path = place(tmp_path, key, name)
    path.write_bytes(damage(path.read_bytes()))
    assert store.find(key) is None
    assert why in caplog.records[-1].why
    store.publish(key, DATA, {})
    assert store.find(key) is not None


def test_a_plan_that_is_there_already_stays(store: PlanStore, key: PlanKey) -> None:
    store.publish(key, DATA, {})
    store.publish(key, b"another", {})
    found = store.find(key)
    assert found is not None
    assert found.data == DATA


def test_nothing_half_written_is_left_or_seen(
    store: PlanStore, key: PlanKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.publish(key, DATA, {})
    assert list((tmp_path / "plans").iterdir()) == []


def test_a_plan_is_accepted_once_and_for_all(store: PlanStore, key: PlanKey) -> None:
    store.publish(key, DATA, {})
    assert not store.accepted(key)
    store.accept(key, {"outputs": []})
    assert store.accepted(key)


@pytest.mark.parametrize("gone", [PLAN, MANIFEST])
@pytest.mark.parametrize("looked", [True, False])
def test_a_plan_of_which_a_part_is_gone_is_built_anew_and_found(
    store: PlanStore, key: PlanKey, tmp_path: Path, gone: str, looked: bool
) -> None:
    store.publish(key, DATA, {})
    place(tmp_path, key, gone).unlink()
    if looked:
        assert store.find(key) is None
    store.publish(key, DATA, {})
    found = store.find(key)
    assert found is not None
    assert found.data == DATA


def test_a_plan_that_was_refused_is_not_found_and_says_why(
    store: PlanStore, key: PlanKey, tmp_path: Path
) -> None:
    store.publish(key, DATA, {})
    store.refuse(key, {"outputs": "off by 3"})
    with pytest.raises(PlanRefused, match="off by 3"):
        store.find(key)
    assert not place(tmp_path, key, PLAN).exists()
    store.forget(key)
    assert store.find(key) is None


def hold(folder: Path, key: PlanKey, told: Connection) -> None:
    """Hold a key's lock until the process is killed."""
    with PlanStore(folder).building(key) as mine:
        told.send(mine)
        signal.pause()


def test_one_process_builds_a_plan_and_a_killed_one_leaves_no_lock(
    store: PlanStore, key: PlanKey, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(tmp_path / "plans", key, theirs))
    holder.start()
    assert ours.recv()
    with store.building(key, wait=False) as mine:
        assert not mine
    holder.kill()
    with store.building(key) as mine:
        assert mine
    holder.join()


def test_the_manifest_can_be_read_by_people(store: PlanStore, key: PlanKey, tmp_path: Path) -> None:
    store.publish(key, DATA, {"precision": "fp32"})
    manifest = json.loads(place(tmp_path, key, MANIFEST).read_text())
    assert manifest["bytes"] == len(DATA)
    assert manifest["key"]["options"]["buckets"] == [1, 2, 4, 8, 16, 32]
