"""Loading: what it asks of engines, what is seen meanwhile, and what may fail."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from inferd_engines.engine import EngineError, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_server.errors import ModelNotReady, SettingsError
from inferd_server.models.entries import State

from tests.fakes.engine import FakeEngine
from tests.models import free_dims, mixes_rows, no_batch, repository, scale
from tests.server.callers import rows_of
from tests.server.models.bench import WITHIN, Bench, apart


class OneEngine(FakeEngine):
    """Opens once, as itself, and tells when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.told = threading.Event()
        self._opened = False

    def __call__(self, path: Path, options: EngineOptions) -> FakeEngine:
        if self._opened:
            raise EngineError("out of memory")
        self._opened = True
        return self

    def close(self) -> None:
        super().close()
        self.told.set()


def refused(bench: Bench) -> str:
    with pytest.raises(ModelNotReady) as caught:
        bench.repository.load("m")
    return str(caught.value)


def test_a_load_is_seen_while_it_lasts(bench: Bench) -> None:
    bench.add("m", 1)
    bench.engines.hold()
    load = apart(lambda: bench.repository.load("m"))
    assert bench.engines.opening.wait(WITHIN)
    assert bench.states == ["m/1 LOADING"]
    with pytest.raises(ModelNotReady, match=r"^model 'm' is LOADING$"):
        bench.repository.resolve("m", "")
    bench.engines.release()
    load.result(WITHIN)
    assert bench.states == ["m/1 READY"]


def test_one_model_serves_while_another_loads(bench: Bench) -> None:
    bench.add("m", 1)
    bench.add("n", 1)
    bench.repository.load("m")
    bench.engines.hold()
    load = apart(lambda: bench.repository.load("n"))
    assert bench.engines.opening.wait(WITHIN)
    assert bench.submit(1.0).wait().output == rows_of(2.0)
    bench.engines.release()
    load.result(WITHIN)


def test_the_opener_gets_the_file_and_the_options_of_model_yaml(bench: Bench) -> None:
    bench.add("m", 7, yaml="engine_options: {a: b}")
    bench.repository.load("m")
    ((path, options),) = bench.engines.asked
    assert path == "m/7/model.onnx"
    assert options.extra == {"a": "b"}


TIMED = [1, 1]
"""Rows of the runs that a batch size is found by, of a model as quick as the fake one."""


@pytest.mark.parametrize(
    ("yaml", "warmed"),
    [
        ("", [*TIMED, 1, 32]),
        ("max_batch_size: 8", [*TIMED, 1, 8]),
        ("{max_batch_size: 8, preferred_batch_size: 4}", [1, 4]),
        ("{max_batch_size: 8, preferred_batch_size: 9}", [1, 8]),
        ("{max_batch_size: 8, preferred_batch_size: [2, 4]}", [1, 4]),
        ("max_batch_size: 0", [1]),
        ("warm_up: [4, 2]", [*TIMED, 4, 2]),
        ("warm_up: []", []),
    ],
)
def test_an_engine_is_warmed_before_it_serves(bench: Bench, yaml: str, warmed: list[int]) -> None:
    bench.add("m", 1, yaml=yaml)
    bench.repository.load("m")
    assert bench.engines.last.warmed == warmed


def test_every_instance_has_an_engine_and_runs_beside_the_others(bench: Bench) -> None:
    bench.add("m", 1, yaml="{instances: 3, max_batch_size: 1}")
    bench.repository.load("m")
    engines = list(bench.engines.opened)
    assert [engine.warmed for engine in engines] == [[1], [1], [1]]
    for engine in engines:
        engine.hold()
    callers = [bench.submit(float(value)) for value in range(3)]
    assert all(engine.running.wait(WITHIN) for engine in engines)
    for engine in engines:
        engine.release()
    assert [caller.wait().output for caller in callers] == [rows_of(0), rows_of(2), rows_of(4)]
    bench.repository.unload("m")
    assert all(engine.closed for engine in engines)


def test_an_instance_that_fails_to_open_ends_the_others(bench: Bench) -> None:
    bench.add("m", 1, yaml="instances: 2")
    opener = OneEngine()
    second = Bench(bench.folder, opener)
    assert refused(second) == "version 1 of model 'm' cannot be loaded: out of memory"
    assert (second.states, second.reasons) == (["m/1 UNAVAILABLE"], ["out of memory"])
    assert second.served() == set()
    assert opener.told.wait(WITHIN)
    second.close()


def test_an_opener_that_breaks_is_no_different_from_one_that_refuses(bench: Bench) -> None:
    bench.add("m", 1)
    bench.engines.failures.append(ZeroDivisionError("bug"))
    assert refused(bench) == "version 1 of model 'm' cannot be loaded: bug"
    assert bench.states == ["m/1 UNAVAILABLE"]
    bench.repository.load("m")
    assert bench.states == ["m/1 READY"]


def test_a_model_whose_folder_is_wrong_is_known_with_the_reason(bench: Bench) -> None:
    bench.add("m")
    assert refused(bench).startswith("model 'm' cannot be loaded: ")
    ((state, reason),) = [(e.state, e.reason) for e in bench.repository.entries()]
    assert state is State.UNAVAILABLE
    assert "has no version" in reason
    with pytest.raises(ModelNotReady, match="has no version"):
        bench.repository.resolve("m", "")
    bench.add("m", 1)
    bench.repository.load("m")
    assert bench.states == ["m/1 READY"]


def test_of_several_versions_those_serve_at_the_start_that_can(bench: Bench) -> None:
    bench.add("m", 1, 2, yaml="versions: all")
    bench.engines.failures.append(EngineError("damaged"))
    assert bench.repository.load_all() == {"m"}
    assert bench.reasons == ["damaged", ""]
    assert bench.states == ["m/1 UNAVAILABLE", "m/2 READY"]


def test_a_damaged_model_does_not_keep_the_others_from_serving(tmp_path: Path) -> None:
    repository(tmp_path, {"a": scale(2.0), "damaged": scale(1.0)})
    repository(tmp_path, {"z": {1: scale(3.0), 2: scale(4.0)}})
    repository(tmp_path, {}, {"z": "versions: all", "wrong": "instances: 0"})
    (tmp_path / "damaged" / "1" / "model.onnx").write_bytes(b"\x08\x0a not a model")
    (tmp_path / "missing" / "1").mkdir(parents=True)
    bench = Bench(tmp_path, open_onnx)
    assert bench.repository.load_all() == {"damaged", "missing", "wrong"}
    ready = ["a/1 READY", "z/1 READY", "z/2 READY"]
    assert [state for state in bench.states if "READY" in state] == ready
    failed = ["damaged/1", "missing/1", "wrong/0"]
    assert [s for s in bench.states if "READY" not in s] == [f"{m} UNAVAILABLE" for m in failed]
    assert all(e.reason for e in bench.repository.entries() if e.state is State.UNAVAILABLE)
    assert bench.submit(1.0, name="a").wait().output == rows_of(2.0)
    assert bench.submit(1.0, "1", name="z").wait().output == rows_of(3.0)
    assert bench.submit(1.0, name="z").wait().output == rows_of(4.0)
    bench.close()


def test_models_batch_where_their_rows_are_independent(tmp_path: Path) -> None:
    models = {"free": free_dims(), "mixes": mixes_rows(), "none": no_batch(), "m": scale(1.0)}
    bench = Bench(repository(tmp_path, models), open_onnx)
    assert bench.repository.load_all() == set()
    batched = {name: bench.repository.resolve(name, "").batched for name in models}
    assert batched == {"free": True, "mixes": False, "none": False, "m": True}
    bench.close()


def test_a_repository_that_cannot_be_read_is_told(bench: Bench) -> None:
    bench.add("m", 1)
    bench.repository.load("m")
    away = bench.folder.rename(bench.folder.with_name("away"))
    with pytest.raises(SettingsError, match="cannot be read"):
        bench.repository.check()
    with pytest.raises(SettingsError, match="cannot be read"):
        bench.repository.load_all()
    assert "cannot be read" in refused(bench)
    assert bench.states == ["m/1 READY"]
    away.rename(bench.folder)
    bench.repository.check()


@pytest.mark.parametrize(
    ("yaml", "said"),
    [
        ("preferred_batch_size: []", "a number of rows from 1, or a list of them"),
        ("preferred_batch_size: [0]", "a number of rows from 1, or a list of them"),
        ("format: {NOPE: NCHW}", "format: there is no input 'NOPE'; there are INPUT0"),
        ("format: {INPUT0: NHWC}", "format: NHWC has 3 dimensions, and input 'INPUT0' has 1"),
        ("format: {INPUT0: RGB}", "'NCHW' or 'NHWC'"),
    ],
)
def test_what_model_yaml_says_of_inputs_and_batches_must_fit(
    bench: Bench, yaml: str, said: str
) -> None:
    bench.add("m", 1, yaml=yaml)
    assert said in refused(bench)
