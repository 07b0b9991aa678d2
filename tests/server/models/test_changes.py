"""A load is all or nothing, what did not change stays, and models do not wait for each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_server.errors import ModelNotFound, ModelNotReady, VersionNotFound
from inferd_server.models.layout import FILES_ABSENT

from tests.fakes.engine import FakeEngine
from tests.server.callers import rows_of
from tests.server.models.bench import WITHIN, Bench, Engines, apart


def refused(call: Callable[[], object]) -> ModelNotReady:
    with pytest.raises(ModelNotReady) as caught:
        call()
    return caught.value


def test_a_version_that_did_not_change_is_not_touched(bench: Bench) -> None:
    bench.add("m", 1, yaml="versions: all")
    bench.repository.load("m")
    before = bench.repository.resolve("m", "1")
    bench.repository.load("m")
    (bench.folder / "m" / "2").mkdir()
    bench.repository.load("m")
    assert bench.repository.resolve("m", "1") is before
    assert bench.repository.resolve("m", "").version == 2
    assert len(bench.engines.opened) == 2


@pytest.mark.parametrize("changed", ["file", "same age and size", "external data", "settings"])
def test_whatever_changed_is_loaded_anew(bench: Bench, changed: str) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    before = bench.repository.resolve("m", "1")
    file = bench.folder / "m" / "1" / "model.onnx"
    if changed == "same age and size":
        age = file.stat()
        file.write_text("F" + file.read_text()[1:])
        os.utime(file, ns=(age.st_atime_ns, age.st_mtime_ns))
    elif changed == "settings":
        (bench.folder / "m" / "model.yaml").write_text("max_batch_size: 2")
    else:
        (file if changed == "file" else file.with_name("weights")).write_text("other")
    bench.repository.load("m")
    assert bench.repository.resolve("m", "1") is not before


def test_a_refused_load_changes_nothing_and_its_reason_is_kept(bench: Bench) -> None:
    bench.add("m", 1, yaml="versions: all")
    bench.repository.load("m")
    before = bench.repository.resolve("m", "1")
    bench.add("m", 1, 10, yaml="versions: all")
    bench.engines.opened.clear()
    engines = iter([FakeEngine()])

    def open_first_only(_: Path, __: EngineOptions) -> FakeEngine:
        try:
            return next(engines)
        except StopIteration:
            raise EngineError("damaged") from None

    bench.engines.override = open_first_only
    text = "version 10 of model 'm' cannot be loaded: damaged"
    assert str(refused(lambda: bench.repository.load("m"))) == text
    assert bench.repository.resolve("m", "") is before
    assert bench.states == ["m/1 READY", "m/10 UNAVAILABLE"]
    assert bench.reasons == ["not loaded, because version 10 failed", "damaged"]
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    assert bench.served() == {"m/1 fake/numpy"}
    bench.engines.override = None
    bench.repository.load("m")
    assert bench.reasons == ["", ""]
    assert bench.repository.resolve("m", "1") is not before


def test_why_a_model_yaml_was_refused_stands_beside_what_serves(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 1, yaml="instances: 0")
    refused(lambda: bench.repository.load("m"))
    assert bench.states == ["m/1 READY"]
    assert "instances: " in bench.reasons[0]
    bench.add("m", 1)
    bench.repository.load("m")
    assert bench.reasons == [""]


def test_a_version_that_is_gone_from_the_folder_is_forgotten(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 2)
    (bench.folder / "m" / "1").rename(bench.folder / "old")
    bench.repository.load("m")
    assert bench.states == ["m/2 READY"]
    with pytest.raises(VersionNotFound, match="it has 2"):
        bench.repository.resolve("m", "1")


def test_a_model_that_is_gone_and_unloaded_is_forgotten(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    (bench.folder / "m").rename(bench.folder / ".m")
    bench.repository.unload("m")
    assert bench.states == []
    with pytest.raises(ModelNotFound, match="is not known; none is"):
        bench.repository.resolve("m", "")


def test_a_model_that_never_loaded_and_is_gone_is_forgotten(bench: Bench) -> None:
    bench.add("m", 1)
    bench.engines.failures.append(EngineError("damaged"))
    refused(lambda: bench.repository.load("m"))
    assert bench.states == ["m/1 UNAVAILABLE"]
    (bench.folder / "m").rename(bench.folder / ".m")
    with pytest.raises(ModelNotFound):
        bench.repository.load("m")
    assert bench.states == []


def test_a_model_that_serves_goes_on_when_its_folder_is_gone(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    (bench.folder / "m").rename(bench.folder / ".m")
    with pytest.raises(ModelNotFound):
        bench.repository.load("m")
    assert (bench.states, bench.reasons) == (["m/1 READY"], ["not in the repository"])
    assert bench.submit(1.0).wait().output == rows_of(2.0)


def test_an_unload_waits_for_no_load_of_another_model(bench: Bench) -> None:
    for name in ("a", "b", "c", "served"):
        bench.add(name, 1)
    bench.repository.load("served")
    bench.engines.hold()
    loads = [apart(lambda name=name: bench.repository.load(name)) for name in ("a", "b", "c")]
    assert bench.engines.opening.wait(WITHIN)
    apart(lambda: bench.repository.unload("served")).result(WITHIN)
    assert not any(load.done() for load in loads)
    bench.engines.release()
    for load in loads:
        load.result(WITHIN)


def test_a_small_model_loads_beside_a_large_one(tmp_path: Path) -> None:
    large = Engines()

    def open_by_name(path: Path, options: EngineOptions) -> FakeEngine:
        return large(path, options) if path.parents[1].name == "large" else FakeEngine()  # type: ignore[return-value]

    bench = Bench(tmp_path, open_by_name)
    bench.add("large", 1)
    bench.add("small", 1)
    large.hold()
    load = apart(lambda: bench.repository.load("large"))
    assert large.opening.wait(WITHIN)
    apart(lambda: bench.repository.load("small")).result(WITHIN)
    assert bench.states == ["large/1 LOADING", "small/1 READY"]
    large.release()
    load.result(WITHIN)
    bench.close()


def test_no_more_models_load_side_by_side_than_may(tmp_path: Path) -> None:
    bench = Bench(tmp_path, concurrent_loads=1)
    bench.add("a", 1)
    bench.add("b", 1)
    bench.engines.hold()
    first = apart(lambda: bench.repository.load("a"))
    assert bench.engines.opening.wait(WITHIN)
    second = apart(lambda: bench.repository.load("b"))
    bench.engines.release()
    first.result(WITHIN)
    second.result(WITHIN)
    loading = [sum("LOADING" in state for state in states) for states in bench.changes]
    assert max(loading) == 1
    bench.close()


@pytest.mark.parametrize("gone", ["repository", "model", "version", "file", "external data"])
def test_a_load_says_when_files_are_not_there_and_may_be_later(bench: Bench, gone: str) -> None:
    bench.add("m", 1)
    weights = bench.folder / "m" / "1" / "weights"
    weights.write_text("weights")
    bench.repository.load("m")
    places = {
        "repository": bench.folder,
        "model": bench.folder / "m",
        "version": bench.folder / "m" / "1",
        "file": bench.folder / "m" / "1" / "model.onnx",
        "external data": weights,
    }
    away = places[gone].rename(bench.folder.with_name("away"))
    bench.engines.failures.append(EngineError("no such file"))
    with pytest.raises((ModelNotReady, ModelNotFound)) as caught:
        bench.repository.restore("m")
    assert caught.value.reason == FILES_ABSENT
    assert bench.states == ["m/1 READY"]
    away.rename(places[gone])
    bench.engines.failures.clear()
    bench.repository.restore("m")
    assert bench.reasons == [""]


def test_a_model_that_should_serve_is_known_though_its_folder_is_not_there(bench: Bench) -> None:
    bench.add("other", 1)
    assert bench.repository.load_all({"m"}) == {"m"}
    assert bench.states == ["m/0 UNAVAILABLE", "other/1 READY"]
    assert bench.repository.wanted == {"m", "other"}
    assert bench.missing == ["m"]
    bench.add("m", 1)
    bench.repository.restore("m")
    assert bench.states == ["m/1 READY", "other/1 READY"]


def test_a_model_that_served_before_and_is_damaged_now_is_tried_again(bench: Bench) -> None:
    bench.add("m", 1)
    bench.add("never", 1)
    bench.engines.failures += [EngineError("damaged"), EngineError("damaged")]
    assert bench.repository.load_all({"m"}) == {"m", "never"}
    assert bench.missing == ["m"]


def test_a_model_that_was_unloaded_is_not_loaded_again(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.repository.unload("m")
    bench.repository.restore("m")
    assert bench.states == ["m/1 UNAVAILABLE"]
    assert bench.repository.wanted == set()
