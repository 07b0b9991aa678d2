"""From a model to a plan that serves: found, judged, built while another engine serves."""

from __future__ import annotations

import errno
import gc
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inferd_engines.choice import FirstOf
from inferd_engines.engine import Array, EngineError, Tensor
from inferd_engines.tensorrt.background import Builds, State
from inferd_engines.tensorrt.errors import (
    BuildFailed,
    DeviceMissing,
    PlanMissing,
    PlanRefused,
    TensorRTError,
)
from inferd_engines.tensorrt.host import host_of
from inferd_engines.tensorrt.key import key_of
from inferd_engines.tensorrt.opener import Gpu, OnDevice, TensorRTOpener, Wanted, wanted_on
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import Library
from inferd_engines.tensorrt.trial import GOLDEN

from tests.device.standin import INVALID_VALUE, LAUNCH_FAILED
from tests.engines.tensorrt.host import OPTIONS, ROW, WITHIN, Host
from tests.fakes.engine import Compute, double
from tests.fakes.tensorrt import ComputeError


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    # Whatever happened, no thread may end with a context.
    assert made.bench.standin.depth == 0
    assert made.bench.standin.broken or made.bench.standin.leaks() == {}
    if made.bench.standin.broken:
        # What such a test could not give back: not on another thread later.
        gc.collect()


def test_a_missing_plan_is_built_while_another_engine_serves_and_then_taken(host: Host) -> None:
    first = FirstOf([("TensorRT", host.opener), ("ONNX Runtime", host.reference)])
    engine = first(host.model, OPTIONS)
    assert engine.name == "reference/numpy"
    assert engine.reason == "TensorRT: BUILDING, the plan is built meanwhile"
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    host.may_build.set()
    assert host.built.get(timeout=WITHIN) == host.model
    better = first(host.model, OPTIONS)
    assert better.name == "tensorrt/Fake GPU"
    assert better.reason == ""
    assert better.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    better.close()


def test_a_plan_is_asked_for_once_however_often_a_model_is_opened(host: Host) -> None:
    assert [host.refusal(), host.refusal()] == ["BUILDING, the plan is built meanwhile"] * 2
    host.may_build.set()
    host.built.get(timeout=WITHIN)
    assert host.built.empty()


def test_a_plan_that_cannot_be_built_is_not_tried_for_ever(host: Host) -> None:
    host.failure = BuildFailed("there is no kernel for Foo")
    host.refusal()
    host.may_build.set()
    deadline = threading.Event()
    while "BUILDING" in (text := host.refusal()):
        deadline.wait(0.01)
    assert text == "FAILED, the plan could not be built: there is no kernel for Foo"


def test_a_plan_is_compared_with_its_model_once(host: Host) -> None:
    host.open_built().close()
    assert len(host.references[-1].batches) == 2
    host.open().close()
    assert host.references[-1].batches == []


def test_an_accepted_plan_says_how_long_its_buckets_take(host: Host, tmp_path: Path) -> None:
    engine = host.open_built()
    assert isinstance(engine, OnDevice)
    assert [latency.rows for latency in engine.latencies] == [1, 4]
    assert all(latency.best == latency.median == Host.TICK for latency in engine.latencies)
    engine.close()
    (path,) = (tmp_path / "plans").glob("*/accepted.json")
    kept = json.loads(path.read_text())
    assert kept["latency"][1] == {"rows": 4, "best": Host.TICK, "median": Host.TICK}
    assert kept["outputs"][0]["output"] == "OUTPUT0"
    again = host.open()
    assert isinstance(again, OnDevice)
    assert again.latencies == engine.latencies
    again.close()


def test_a_report_that_cannot_be_read_is_made_anew(host: Host, tmp_path: Path) -> None:
    host.open_built().close()
    (path,) = (tmp_path / "plans").glob("*/accepted.json")
    for damaged in ("{", "[]", ""):
        path.write_text(damaged)
        host.open().close()
        assert len(host.references[-1].batches) == 2
        assert json.loads(path.read_text())["latency"]


def refusing_negatives(error: Exception) -> Compute:
    """Return a model that drawn inputs are none for."""

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        if not (inputs["INPUT0"] >= 0).all():
            raise error
        return double(inputs)

    return compute


def test_a_plan_that_takes_no_drawn_inputs_serves_untimed(host: Host) -> None:
    np.savez(host.model.parent / GOLDEN, INPUT0=np.ones((3, 4), np.float32))
    host.compute = refusing_negatives(ComputeError(INVALID_VALUE))
    engine = host.open_built()
    assert isinstance(engine, OnDevice)
    assert engine.latencies == ()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    engine.close()


def test_an_error_that_ends_the_process_is_not_taken_for_an_untimed_plan(host: Host) -> None:
    np.savez(host.model.parent / GOLDEN, INPUT0=np.ones((3, 4), np.float32))
    host.compute = refusing_negatives(ComputeError(LAUNCH_FAILED, sticky=True))
    with pytest.raises(EngineError, match="launch failure") as failed:
        host.open_built()
    assert failed.value.fatal


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_plan_serves_though_its_comparison_cannot_be_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.store, "accept", no_room)
    engine = host.open_built()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    engine.close()


def test_a_plan_with_other_answers_is_refused_though_that_cannot_be_kept(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host.store, "refuse", no_room)
    host.compute = lambda inputs: {"OUTPUT0": inputs["INPUT0"] * 2.1}
    with pytest.raises(PlanRefused, match="other answers"):
        host.open_built()


def test_a_plan_with_other_answers_never_serves(host: Host) -> None:
    def wrong(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": inputs["INPUT0"] * 2.1}

    host.compute = wrong
    with pytest.raises(PlanRefused, match=r"other answers: output 'OUTPUT0' is off by 0\.05"):
        host.open_built()
    with pytest.raises(PlanRefused, match="built and refused"):
        host.open()


def test_the_golden_inputs_of_a_model_decide(host: Host) -> None:
    def wrong_for_negatives(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": np.abs(inputs["INPUT0"]) * 2}

    np.savez(host.model.parent / GOLDEN, INPUT0=np.ones((3, 4), np.float32))
    host.compute = wrong_for_negatives
    engine = host.open_built()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    assert [batch.rows for batch in host.references[-1].batches] == [3]
    engine.close()


def test_golden_inputs_that_cannot_be_read_are_named(host: Host) -> None:
    (host.model.parent / GOLDEN).write_bytes(b"no archive")
    with pytest.raises(EngineError, match=r"golden\.npz cannot be read"):
        host.open_built()


def test_a_damaged_plan_is_built_anew(host: Host, tmp_path: Path) -> None:
    host.open_built().close()
    (path,) = (tmp_path / "plans").glob("*/plan")
    path.write_bytes(b"X")
    # This process built it once already, and says so instead of trying for ever.
    assert host.refusal() == "FAILED, the plan was built and is not in the store"
    fresh = Builds(host.build)
    fresh.when_ended(host.built.put)
    gpu = Gpu(host.bench.library, host.bench.device)
    host.opener = TensorRTOpener(host.store, host.reference, fresh, lambda: gpu)
    host.open_built().close()


def test_a_plan_that_another_process_built_is_found(host: Host) -> None:
    asked: list[Wanted] = []
    gpu = Gpu(host.bench.library, host.bench.device)

    def missing(wanted: Wanted) -> TensorRTError:
        asked.append(wanted)
        return PlanMissing("later")

    opener = TensorRTOpener(host.store, host.reference, missing, lambda: gpu)
    with pytest.raises(TensorRTError, match="later"):
        opener(host.model, OPTIONS)
    host.publish(asked[0])
    opener(host.model, OPTIONS).close()


def test_where_there_is_no_gpu_the_reason_is_looked_for_each_time(host: Host) -> None:
    reasons = ["no driver", "no device"]

    def nothing() -> Gpu:
        raise DeviceMissing(reasons.pop(0))

    opener = TensorRTOpener(host.store, host.reference, host.builds, nothing)
    for words in ("no driver", "no device"):
        with pytest.raises(DeviceMissing, match=words):
            opener(host.model, OPTIONS)


def test_the_state_of_a_build_can_be_asked(host: Host) -> None:
    asked: list[Wanted] = []

    def missing(wanted: Wanted) -> TensorRTError:
        asked.append(wanted)
        return host.builds(wanted)

    gpu = Gpu(host.bench.library, host.bench.device)
    opener = TensorRTOpener(host.store, host.reference, missing, lambda: gpu)
    with pytest.raises(TensorRTError):
        opener(host.model, OPTIONS)
    assert host.builds.state(asked[0]) is State.BUILDING
    host.may_build.set()
    host.built.get(timeout=WITHIN)
    assert host.builds.state(asked[0]) is State.BUILT


class AheadOfTime:
    """A double for TensorRT-RTX, as far as keys depend on it."""

    class ComputeCapability:
        SM89 = 0


@pytest.mark.parametrize(
    ("capability", "target", "of_this_gpu"), [("8.9", "8.9", False), ("9.0", "current", True)]
)
def test_a_plan_is_looked_for_where_the_command_puts_it(
    host: Host, capability: str, target: str, of_this_gpu: bool
) -> None:
    here = replace(host.bench.device.gpu, capability=capability)
    library = Library(AheadOfTime, "tensorrt_rtx", "1.7")
    gpu = Gpu(library, replace(host.bench.device, gpu=here))
    wanted = wanted_on(gpu, host.model, BuildOptions())
    assert wanted.options.targets == (target,)
    assert (wanted.key.parts["host"]["gpu"] is not None) is of_this_gpu
    built = key_of(host.model, host_of(library, wanted.options, lambda: here), wanted.options)
    assert built.digest == wanted.key.digest


def test_a_plan_of_files_that_changed_while_the_model_was_loaded_is_refused(host: Host) -> None:
    host.open_built().close()
    host.meddle = lambda: (host.model.parent / "weights").write_bytes(b"made_of_other_files")
    assert "changed while the model was loaded" in host.refusal()


def test_a_model_that_tensorrt_cannot_read_is_not_built(host: Host) -> None:
    host.model = host.model.rename(host.model.with_suffix(".ort"))
    assert "this model is an ORT file" in host.refusal()
    assert host.built.empty()


def test_a_model_that_callers_may_tell_more_than_its_plan_is_served_by_another_engine(
    host: Host,
) -> None:
    host.open_built().close()
    host.optional = (Tensor("limit", np.dtype(np.float32), (), default=bytes(4)),)
    assert "callers may give 'limit' or leave that out" in host.refusal()
    assert host.references[-1].closed
