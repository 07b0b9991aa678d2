"""Which plan a model asks for, by its options and this host, and what is compiled of it here."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from inferd_engines.engine import EngineOptions
from inferd_engines.tensorrt import command, opener
from inferd_engines.tensorrt.errors import (
    BuildFailed,
    PlanRefused,
)
from inferd_engines.tensorrt.host import host_of
from inferd_engines.tensorrt.key import Gpu as Card
from inferd_engines.tensorrt.key import compatible, key_of
from inferd_engines.tensorrt.opener import Gpu, TensorRTOpener, wanted_on
from inferd_engines.tensorrt.options import BuildOptions, flags_of, options_from
from onnx import TensorProto, helper

from tests import models
from tests.engines.tensorrt.bench import PLAN
from tests.engines.tensorrt.host import OPTIONS, ROW, Host

BLOCKING_SYNC = 1
CARD = Card("Another GPU", "9.0", 114)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    # Whatever happened, no thread may end with a context.
    assert made.bench.standin.depth == 0
    assert made.bench.standin.broken or made.bench.standin.leaks() == {}


@pytest.fixture
def rtx(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path, rtx=True)
    yield made
    assert made.bench.standin.depth == 0
    assert made.bench.standin.leaks() == {}


def test_what_is_compiled_for_a_gpu_is_compiled_once_for_all_contexts_and_starts(
    rtx: Host, tmp_path: Path
) -> None:
    rtx.open_built().close()
    # Two lanes, and one of them was the first.
    assert sorted(rtx.bench.trt.compiled) == [0, 1]
    for _ in range(2):
        rtx.bench.trt.compiled.clear()
        rtx.open().close()
        assert rtx.bench.trt.compiled == []
    (cache,) = (path for path in (tmp_path / "plans/runtime").iterdir() if not path.suffix)
    cache.write_bytes(b"damaged")
    rtx.open().close()
    assert sorted(rtx.bench.trt.compiled) == [0, 1]


def test_what_another_driver_compiled_is_not_used(
    rtx: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    rtx.open_built().close()
    rtx.bench.trt.compiled.clear()
    monkeypatch.setattr(opener, "cuda_version", lambda: "99.0")
    rtx.open().close()
    assert sorted(rtx.bench.trt.compiled) == [0, 1]


def test_a_plan_that_tensorrt_says_cannot_be_captured_runs_without_graphs(
    rtx: Host, caplog: pytest.LogCaptureFixture
) -> None:
    rtx.open_built().close()
    rtx.bench.models[PLAN].capturable = False
    before = rtx.bench.standin.launches
    engine = rtx.open()
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    assert rtx.bench.standin.launches == before
    engine.close()
    why = {vars(one)["why"] for one in caplog.records if one.message == "no CUDA graph"}
    assert why == {"TensorRT cannot run this plan within a graph"}


@pytest.mark.parametrize("wait", ["spin", "block"])
def test_a_model_says_how_its_engine_waits(host: Host, wait: str) -> None:
    host.open_built().close()
    options = replace(OPTIONS, extra={**OPTIONS.extra, "tensorrt.wait": wait})
    engine = host.opener(host.model, options)
    assert engine.run(ROW, {}, 1)["OUTPUT0"][0, 0] == 2
    assert bool(host.bench.standin.event_flags() & BLOCKING_SYNC) is (wait == "block")
    engine.close()


def test_a_model_that_says_nothing_waits_as_the_server_does(host: Host) -> None:
    host.open_built().close()
    gpu = Gpu(host.bench.library, host.bench.device)
    opener = TensorRTOpener(host.store, host.reference, host.builds, lambda: gpu, block=True)
    opener(host.model, OPTIONS).close()
    assert host.bench.standin.event_flags() & BLOCKING_SYNC
    spinning = replace(OPTIONS, extra={**OPTIONS.extra, "tensorrt.wait": "spin"})
    opener(host.model, spinning).close()
    assert not host.bench.standin.event_flags() & BLOCKING_SYNC


def test_a_way_to_wait_that_there_is_not_is_named(host: Host) -> None:
    options = replace(OPTIONS, extra={**OPTIONS.extra, "tensorrt.wait": "sleep"})
    with pytest.raises(BuildFailed, match=r"tensorrt\.wait is spin or block, and not 'sleep'"):
        host.opener(host.model, options)


ASKED = (
    {"optimization_level": "3", "workspace_mib": "64"},
    {"version_compatible": "true"},
    {"hardware_compatibility": "ampere_plus"},
    {"hardware_compatibility": "same_compute_capability", "precision": "tf32"},
    {"targets": "9.0"},
    {"targets": "8.9,9.0,12.0"},
)


@pytest.mark.parametrize("asked", ASKED, ids=str)
def test_every_option_of_a_build_can_be_asked_for_and_its_plan_is_found(
    request: pytest.FixtureRequest, asked: Mapping[str, str]
) -> None:
    here: Host = request.getfixturevalue("rtx" if "targets" in asked else "host")
    parser = argparse.ArgumentParser()
    command.configure(parser)
    asked_for = {f"tensorrt.{name}": text for name, text in asked.items()}
    options = options_from({**OPTIONS.extra, **asked_for})
    flags = [str(here.model), "--output", "plans", *flags_of(options)]
    # As the command has it.
    built = command.options_of(parser.parse_args(flags))
    found = wanted_on(Gpu(here.bench.library, here.bench.device), here.model, options)
    host_here = host_of(here.bench.library, built, lambda: here.bench.device.gpu)
    assert key_of(here.model, compatible(host_here, built), built).digest == found.key.digest


def test_targets_without_this_gpu_are_refused(rtx: Host) -> None:
    options = EngineOptions(extra={"tensorrt.targets": "8.9,12.0"})
    with pytest.raises(PlanRefused, match=r"targets are 8\.9, 12\.0, and this GPU is of .* 9\.0"):
        rtx.opener(rtx.model, options)


@pytest.mark.parametrize(
    ("compatibility", "other", "same"),
    [
        ("none", CARD, False),
        ("same_compute_capability", CARD, True),
        ("same_compute_capability", replace(CARD, capability="8.0"), False),
        ("ampere_plus", replace(CARD, capability="8.0"), True),
    ],
)
def test_plans_that_run_on_more_gpus_are_found_on_them(
    host: Host, compatibility: str, other: Card, same: bool
) -> None:
    options = BuildOptions(hardware_compatibility=compatibility)
    device = host.bench.device
    keys = {
        wanted_on(Gpu(host.bench.library, replace(device, gpu=gpu)), host.model, options).key.digest
        for gpu in (device.gpu, other)
    }
    assert (len(keys) == 1) is same


def test_plans_for_later_versions_are_found_by_them(host: Host) -> None:
    keys = {
        wanted_on(
            Gpu(replace(host.bench.library, version=version), host.bench.device),
            host.model,
            BuildOptions(version_compatible=compatible),
        ).key.digest
        for version in ("10.9.0", "10.16.1")
        for compatible in (True, False)
    }
    assert len(keys) == 3


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_model_of_datatypes_that_tensorrt_lacks_is_not_built(host: Host, side: str) -> None:
    kinds = (TensorProto.DOUBLE, TensorProto.FLOAT)[:: 1 if side == "input" else -1]
    graph = helper.make_graph(
        [helper.make_node("Cast", ["X"], ["Y"], to=kinds[1])],
        "cast",
        [helper.make_tensor_value_info("X", kinds[0], [None, 4])],
        [helper.make_tensor_value_info("Y", kinds[1], [None, 4])],
    )
    models.save(helper.make_model(graph), host.model)
    assert f"{side} '{'XY'[side == 'output']}' is float64, which TensorRT does" in host.refusal()
    assert host.built.empty()
