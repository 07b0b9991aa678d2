"""Models are loaded, replaced and unloaded while requests come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from inferd_engines.engine import EngineError
from inferd_server.errors import (
    ModelNotFound,
    ModelNotReady,
    VersionNotFound,
)

from tests.fakes.engine import FakeEngine
from tests.server.callers import Caller, rows_of
from tests.server.models.bench import WITHIN, Bench, Engines, apart


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ModelNotReady) as caught:
        call()
    return str(caught.value)


def held(bench: Bench) -> tuple[FakeEngine, Caller]:
    """Hold a request inside the engine that was opened last."""
    engine = bench.engines.last
    engine.hold()
    caller = bench.submit(1.0)
    assert engine.running.wait(WITHIN)
    return engine, caller


def test_a_loaded_model_serves(bench: Bench) -> None:
    bench.add("m", 3)
    bench.repository.load("m")
    assert bench.states == ["m/3 READY"]
    assert bench.changes == [["m/3 LOADING"], ["m/3 READY"]]
    assert bench.submit(1.5).wait().output == rows_of(3.0)
    assert bench.submit(2.0, version="3").wait().output == rows_of(4.0)
    assert bench.served() == {"m/3 fake/numpy"}


def test_nothing_serves_before_it_is_loaded(bench: Bench) -> None:
    bench.add("m", 1)
    assert bench.repository.entries() == []
    with pytest.raises(ModelNotFound, match=r"^model 'm' is not known; none is$"):
        bench.repository.resolve("m", "")


@pytest.mark.parametrize("name", ["n", "", "..", "m/1", "M", ".hidden"])
def test_a_model_without_a_folder_cannot_be_loaded(bench: Bench, name: str) -> None:
    bench.add("m", 1)
    bench.add(".hidden", 1)
    with pytest.raises(ModelNotFound) as caught:
        bench.repository.load(name)
    assert str(caught.value) == f"model {name!r} is not in the repository"
    assert bench.repository.entries() == []


def test_what_was_never_loaded_cannot_be_unloaded(bench: Bench) -> None:
    bench.add("m", 1)
    with pytest.raises(ModelNotFound, match=r"^model 'm' is not known$"):
        bench.repository.unload("m")


@pytest.mark.parametrize(
    ("policy", "served"),
    [("latest", ["m/10"]), ("all", ["m/1", "m/9", "m/10"]), ("[1, 9]", ["m/1", "m/9"])],
)
def test_the_policy_says_which_versions_serve(bench: Bench, policy: str, served: list[str]) -> None:
    bench.add("m", 1, 9, 10, yaml=f"versions: {policy}")
    bench.repository.load("m")
    assert bench.states == [f"{version} READY" for version in served]
    assert f"m/{bench.repository.resolve('m', '').version}" == served[-1]
    with pytest.raises(VersionNotFound):
        bench.repository.resolve("m", "2")


def test_a_reload_answers_what_the_old_engine_has(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    old, running = held(bench)
    waiting = bench.submit(2.0)
    bench.add("m", 1)
    reload = apart(lambda: bench.repository.load("m"))
    bench.await_changes(3)
    after = bench.submit(3.0)
    assert after.wait().output == rows_of(6.0)
    assert running.answers == waiting.answers == 0
    old.release()
    reload.result(WITHIN)
    assert running.wait().output == rows_of(2.0)
    assert waiting.wait().output == rows_of(4.0)
    assert old.closed
    assert len(bench.engines.opened) == 2


def test_the_old_engine_serves_while_the_new_one_opens(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 1)
    bench.engines.hold()
    reload = apart(lambda: bench.repository.load("m"))
    assert bench.engines.opening.wait(WITHIN)
    assert bench.states == ["m/1 READY"]
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    bench.engines.release()
    reload.result(WITHIN)
    assert bench.states == ["m/1 READY"]


def test_a_reload_that_fails_leaves_the_old_engine_serving(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 1)
    bench.engines.failures.append(EngineError("damaged"))
    message = refused(lambda: bench.repository.load("m"))
    assert message == "version 1 of model 'm' cannot be loaded: damaged"
    assert bench.states == ["m/1 READY"]
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    assert bench.served() == {"m/1 fake/numpy"}


def test_a_reload_with_a_wrong_model_yaml_leaves_the_old_engine_serving(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 1, yaml="instances: 0")
    assert "instances: " in refused(lambda: bench.repository.load("m"))
    assert bench.states == ["m/1 READY"]
    assert bench.submit(1.0).wait().output == rows_of(2.0)


def test_a_reload_does_not_leave_the_label_of_the_old_engine(tmp_path: Path) -> None:
    names = iter(["fake/GPU", "fake/CPU"])
    bench = Bench(tmp_path, Engines(lambda: FakeEngine(name=next(names))))
    bench.add("m", 1)
    bench.repository.load("m")
    assert bench.served() == {"m/1 fake/GPU"}
    bench.repository.reload("m")
    assert bench.served() == {"m/1 fake/CPU"}
    bench.close()
    assert bench.served() == set()


def test_a_new_version_takes_over_and_the_old_one_is_unloaded(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 2)
    bench.repository.load("m")
    assert bench.states == ["m/1 UNAVAILABLE", "m/2 READY"]
    assert bench.repository.resolve("m", "").version == 2
    assert bench.served() == {"m/2 fake/numpy"}
    with pytest.raises(VersionNotFound, match=r"^version 1 of model 'm' was unloaded$"):
        bench.repository.resolve("m", "1")


def test_a_new_version_that_fails_leaves_the_old_one_serving(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.add("m", 2)
    bench.engines.failures.append(EngineError("damaged"))
    refused(lambda: bench.repository.load("m"))
    assert bench.states == ["m/1 READY", "m/2 UNAVAILABLE"]
    assert bench.reasons == ["", "damaged"]
    assert bench.submit(1.0).wait().output == rows_of(2.0)


def test_unloading_answers_what_waits_and_refuses_what_comes(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    handle = bench.repository.resolve("m", "")
    engine, running = held(bench)
    waiting = [bench.submit(float(value)) for value in range(2, 5)]
    unload = apart(lambda: bench.repository.unload("m"))
    bench.await_changes(3)
    assert bench.states == ["m/1 UNLOADING"]
    with pytest.raises(ModelNotFound, match=r"^model 'm' is being unloaded$"):
        bench.repository.resolve("m", "")
    assert not engine.closed
    engine.release()
    unload.result(WITHIN)
    assert running.wait().output == rows_of(2.0)
    assert [caller.wait().output for caller in waiting] == [rows_of(4), rows_of(6), rows_of(8)]
    assert bench.states == ["m/1 UNAVAILABLE"]
    assert engine.closed
    assert handle.arena.rows == 0
    assert bench.served() == set()


def test_an_unloaded_model_loads_again(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    bench.repository.unload("m")
    bench.repository.load("m")
    assert bench.changes[-2:] == [["m/1 LOADING"], ["m/1 READY"]]
    assert bench.submit(1.0).wait().output == rows_of(2.0)
