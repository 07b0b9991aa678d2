"""What TensorRT measured is kept beside the plans, and believed only where it is whole and own."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from inferd_engines.tensorrt import command
from inferd_engines.tensorrt.building import add_plan
from inferd_engines.tensorrt.cache_store import CacheFile, timing_cache
from inferd_engines.tensorrt.disk import lock
from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.key import Gpu, Host, key_of
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import Library
from inferd_engines.tensorrt.store import PlanStore

from tests.fakes.tensorrt_builder import MAGIC, TimingTensorRT

HOST = Host("tensorrt", "11.1.0.2", "13.3", Gpu("NVIDIA H100", "9.0", 132))
OLD, NEW = b"one", b"one and\n two"


@pytest.fixture
def trt() -> TimingTensorRT:
    return TimingTensorRT()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "1/model.onnx"
    path.parent.mkdir()
    path.write_bytes(b"a model")
    return path


@pytest.fixture
def cache(tmp_path: Path) -> CacheFile:
    return timing_cache(tmp_path, HOST, ())


def never(one: bytes, other: bytes) -> bytes:
    raise AssertionError((one, other))


def file(tmp_path: Path) -> Path:
    (found,) = (path for path in (tmp_path / "timing").iterdir() if not path.suffix)
    return found


def add(
    folder: Path, model: Path, trt: TimingTensorRT, *buckets: int, host: Host = HOST
) -> BuildOptions:
    options = BuildOptions(buckets=buckets)
    library = Library(trt, host.flavour, host.version)
    add_plan(folder, key_of(model, host, options), model, library, host, options)
    return options


def test_a_build_times_only_what_no_build_before_it_timed(
    tmp_path: Path, model: Path, trt: TimingTensorRT
) -> None:
    first = add(tmp_path, model, trt, 1, 2)
    second = add(tmp_path, model, trt, 2, 4)
    assert trt.timed == ["(1x 4)", "(2x 4)", "(4x 4)"]
    for options in (first, second):
        assert PlanStore(tmp_path).find(key_of(model, HOST, options)) is not None


@pytest.mark.parametrize(
    "other",
    [
        replace(HOST, flavour="tensorrt_lean"),
        replace(HOST, version="11.1.0.3"),
        replace(HOST, cuda="13.4"),
        replace(HOST, gpu=Gpu("NVIDIA H200", "9.0", 132)),
    ],
)
def test_hosts_that_differ_have_caches_of_their_own(
    tmp_path: Path, model: Path, trt: TimingTensorRT, other: Host
) -> None:
    add(tmp_path, model, trt, 1)
    add(tmp_path, model, trt, 1, host=other)
    assert trt.timed == ["(1x 4)"] * 2


def test_targets_that_differ_have_caches_of_their_own(tmp_path: Path) -> None:
    timing_cache(tmp_path, HOST, ("8.9",)).keep(b"", NEW, never)
    assert timing_cache(tmp_path, HOST, ("8.9",)).read() == NEW
    assert timing_cache(tmp_path, HOST, ("12.0",)).read() == b""


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda data: data[:-1], "bytes and should have"),
        (lambda data: data[:-1] + b"X", "not those that were written"),
        (lambda data: data.replace(b"11.1.0.2", b"10.9.0.1"), "host.version is 10.9.0.1"),
        (lambda data: b"[]\n" + data, "not one of a cache"),
        (lambda data: b"", "Expecting"),
        (lambda data: b"\xff", "codec"),
    ],
)
def test_a_damaged_or_foreign_cache_is_ignored_with_the_reason_and_replaced(
    cache: CacheFile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[bytes], bytes],
    why: str,
) -> None:
    cache.keep(b"", OLD, never)
    path = file(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.read() == b""
    assert caplog.records[-1].message == "a timing cache is ignored"
    assert why in caplog.records[-1].why
    cache.keep(b"", NEW, never)
    assert cache.read() == NEW


def test_a_cache_that_tensorrt_does_not_take_is_replaced_by_a_new_one(
    tmp_path: Path, model: Path, trt: TimingTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    kept = timing_cache(tmp_path, HOST, ())
    for strange in (b"no cache", MAGIC + b"GPU-B:"):
        kept.keep(kept.read(), strange, lambda one, _: one)
        add(tmp_path, model, trt, 1)
        assert "TensorRT does not take the timing cache" in caplog.text
        assert kept.read() == MAGIC + b"GPU-A:(1x 4)"
        PlanStore(tmp_path).forget(key_of(model, HOST, BuildOptions(buckets=(1,))))
        caplog.clear()


def test_what_another_build_measured_meanwhile_stays(
    tmp_path: Path, model: Path, trt: TimingTensorRT
) -> None:
    class Meanwhile(TimingTensorRT):
        def _build(self, found: object, config: object) -> bytes:
            add(tmp_path, model, trt, 8)
            return super()._build(found, config)  # type: ignore[arg-type]

    add(tmp_path, model, trt, 1)
    add(tmp_path, model, Meanwhile(), 2)
    assert timing_cache(tmp_path, HOST, ()).read() == MAGIC + b"GPU-A:(1x 4),(2x 4),(8x 4)"


def test_a_cache_that_cannot_be_joined_or_written_costs_no_plan(
    cache: CacheFile,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(one: bytes, other: bytes) -> bytes:
        raise BuildFailed("they are of two devices")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    cache.keep(b"", OLD, never)
    cache.keep(b"another", NEW, refuse)
    assert caplog.records[-1].why == "they are of two devices"
    monkeypatch.setattr(os, "fsync", full)
    cache.keep(OLD, NEW, never)
    assert "No space left" in caplog.records[-1].why
    assert cache.read() == OLD
    assert [path.name for path in (tmp_path / "timing").iterdir() if path.name[0] == "."] == []


def test_nobody_else_adds_to_a_cache_while_two_are_joined(cache: CacheFile, tmp_path: Path) -> None:
    taken: list[bool] = []

    def join(one: bytes, other: bytes) -> bytes:
        with lock(file(tmp_path).with_suffix(".lock"), wait=False) as mine:
            taken.append(mine)
        return one + other

    cache.keep(b"", OLD, never)
    cache.keep(b"", NEW, join)
    assert taken == [False]
    assert cache.read() == NEW + OLD


def test_a_build_that_measured_nothing_new_writes_nothing(cache: CacheFile, tmp_path: Path) -> None:
    cache.keep(OLD, OLD, never)
    assert list(tmp_path.iterdir()) == []


def test_people_can_read_what_a_cache_is_of(cache: CacheFile, tmp_path: Path) -> None:
    cache.keep(b"", NEW, never)
    about = json.loads(file(tmp_path).read_bytes().partition(b"\n")[0])
    assert about["of"]["host"]["gpu"]["name"] == "NVIDIA H100"
    assert about["bytes"] == len(NEW)


def hold(path: Path, told: Connection) -> None:
    """Hold a cache's lock until the process is killed."""
    with lock(path) as mine:
        told.send(mine)
        signal.pause()


def test_a_builder_that_is_killed_leaves_no_lock(cache: CacheFile, tmp_path: Path) -> None:
    cache.keep(b"", OLD, never)
    path = file(tmp_path).with_suffix(".lock")
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(path, theirs))
    holder.start()
    assert ours.recv()
    with lock(path, wait=False) as mine:
        assert not mine
    holder.kill()
    cache.keep(OLD, NEW, never)
    assert cache.read() == NEW
    holder.join()


def test_the_command_keeps_one(
    tmp_path: Path, model: Path, trt: TimingTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "find", lambda: Library(trt, HOST.flavour, HOST.version))
    monkeypatch.setattr(command, "host_of", lambda *_: HOST)
    parser = argparse.ArgumentParser()
    command.configure(parser)
    for buckets in ("1,2", "1,2", "1,4"):
        flags = [str(model), "--output", str(tmp_path / "plans"), "--buckets", buckets]
        assert command.run(parser.parse_args(flags)) == 0
    assert trt.timed == ["(1x 4)", "(2x 4)", "(4x 4)"]
    assert timing_cache(tmp_path / "plans", HOST, ()).read().startswith(MAGIC)
