"""Real plans, built by TensorRT-RTX without a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_engines.engine import EngineError
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.errors import BuildCancelled, BuildFailed
from inferd_engines.tensorrt.key import Host, key_of
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range
from inferd_engines.tensorrt.progress import Build, Phase
from inferd_engines.tensorrt.recording import Recording, listeners_of, logger_of
from inferd_engines.tensorrt.shim import Library, required
from inferd_engines.tensorrt.store import PlanStore
from inferd_server.settings.model import shipped_models
from onnx import TensorProto, helper, numpy_helper

from benchmarks import resnet50
from tests import models
from tests.engines.tensorrt.conftest import RTX

DIGITS = shipped_models() / "digits/1/model.onnx"
SMALL = BuildOptions(buckets=(1, 4), targets=("8.9",))


@pytest.fixture
def builder(library: Library) -> Builder:
    return Builder(library)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    models.save(model, path)
    return path


def test_the_digits_model_becomes_a_plan_and_tells_how_far_it_is(builder: Builder) -> None:
    told: list[tuple[str, int]] = []
    build = Build(lambda phase, done: told.append((phase.name, done)))
    plan, cache = builder.build(DIGITS, SMALL, build)
    assert len(plan) > DIGITS.stat().st_size / 4
    # TensorRT-RTX times nothing at build.
    assert cache == b""
    names = {name for name, _ in told}
    assert len(names) > 1
    assert all(max(done for name, done in told if name == one) > 0 for one in names)


def test_resnet50_becomes_a_plan(builder: Builder, tmp_path: Path) -> None:
    model = resnet50.write(tmp_path / "models")
    options = BuildOptions(buckets=(1, 8), targets=("8.9",))
    plan, _ = builder.build(model, options)
    # The weights are in it: 25 million of 4 bytes.
    assert len(plan) > 90_000_000


def test_a_network_is_read_with_the_models_own_signature(builder: Builder) -> None:
    found = builder.signature(DIGITS)
    assert [(tensor.name, tensor.shape) for tensor in found.inputs] == [("image", (None, 8, 8))]


def test_a_build_can_be_cancelled(builder: Builder) -> None:
    build = Build()

    def cancel(_phase: Phase, _done: int) -> None:
        build.cancel()

    build = Build(cancel)
    with pytest.raises(BuildCancelled, match="cancelled"):
        builder.build(DIGITS, SMALL, build)
    # Another one is not concerned.
    assert builder.build(DIGITS, SMALL)[0]


def test_a_file_that_is_no_model_is_refused_with_the_parsers_words(
    builder: Builder, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"no model")
    with pytest.raises(BuildFailed, match=r"could not read model\.onnx: \S"):
        builder.build(path, SMALL)


def test_an_operator_that_tensorrt_lacks_is_named(builder: Builder, tmp_path: Path) -> None:
    node = helper.make_node("Frobnicate", ["X"], ["Y"], domain="example")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example", 1)]
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets).SerializeToString())
    with pytest.raises(BuildFailed, match="Frobnicate"):
        builder.build(path, SMALL)


def test_free_dimensions_need_a_range_and_then_build(builder: Builder, tmp_path: Path) -> None:
    path = saved(models.free_dims(), tmp_path)
    with pytest.raises(BuildFailed, match=r"'INPUT0' has the shape \[\?, \?\]"):
        builder.build(path, SMALL)
    ranges = {"INPUT0": Range((1,), (8,), (64,))}
    options = BuildOptions(buckets=(1, 2), ranges=ranges, targets=("8.9",))
    assert builder.build(path, options)[0]


def test_a_model_without_a_batch_builds(builder: Builder, tmp_path: Path) -> None:
    path = saved(models.no_batch(), tmp_path)
    assert builder.build(path, BuildOptions(batched=False, targets=("8.9",)))[0]


def test_half_precision_is_in_the_graph_and_halves_the_weights(
    builder: Builder, tmp_path: Path
) -> None:
    model = resnet50.write(tmp_path)
    plan, _ = builder.build(model, BuildOptions("fp16", buckets=(1,), targets=("8.9",)))
    assert len(plan) < 60_000_000


def quantised() -> onnx.ModelProto:
    """One MatMul with its input and weights through Q/DQ nodes, as a quantiser writes them."""

    def constant(name: str, value: np.ndarray) -> onnx.TensorProto:
        return numpy_helper.from_array(value, name)

    weights = np.eye(16, dtype=np.float32)
    nodes = [
        helper.make_node("QuantizeLinear", ["X", "s", "z"], ["Xq"]),
        helper.make_node("DequantizeLinear", ["Xq", "s", "z"], ["Xd"]),
        helper.make_node("QuantizeLinear", ["W", "s", "z"], ["Wq"]),
        helper.make_node("DequantizeLinear", ["Wq", "s", "z"], ["Wd"]),
        helper.make_node("MatMul", ["Xd", "Wd"], ["Y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", 16])],
        [
            constant("W", weights),
            constant("s", np.array(1 / 127, np.float32)),
            constant("z", np.array(0, np.int8)),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_int8_comes_from_a_quantised_graph_and_from_no_other(
    builder: Builder, tmp_path: Path
) -> None:
    options = BuildOptions("int8", buckets=(1,), targets=("8.9",))
    with pytest.raises(BuildFailed, match="no Q/DQ nodes"):
        builder.build(DIGITS, options)
    assert builder.build(saved(quantised(), tmp_path), options)[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (BuildOptions(buckets=(1,), targets=("6.1",)), "compute capability 6.1 is none of"),
        (
            BuildOptions(buckets=(1,), hardware_compatibility="ampere_plus"),
            "no hardware compatibility",
        ),
        (BuildOptions(buckets=(1,), version_compatible=True), "no version-compatible plans"),
    ],
)
def test_what_this_flavour_cannot_do_is_said(
    builder: Builder, options: BuildOptions, words: str
) -> None:
    with pytest.raises(BuildFailed, match=words):
        builder.build(DIGITS, options)


def test_precisions_that_need_a_package_name_it(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelopt.onnx.autocast", None)
    with pytest.raises(BuildFailed, match=r"bf16 needs the package modelopt\.onnx\.autocast"):
        builder.build(DIGITS, BuildOptions("bf16", buckets=(1,)))


def test_a_plan_is_not_read_where_there_is_no_driver_and_the_reason_is_told(
    library: Library, builder: Builder
) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("there is a driver here")
    plan, _ = builder.build(DIGITS, SMALL)
    recording = Recording()
    listeners_of(library.module).listen(recording)
    runtime = library.module.Runtime(logger_of(library.module))
    engine = None if runtime is None else runtime.deserialize_cuda_engine(plan)
    with pytest.raises(EngineError, match=r"read the plan: .*(?i:cuda|driver)"):
        required(engine, "read the plan", recording)


def command(model: Path, store: Path, *flags: str) -> list[str]:
    module = "inferd_engines.tensorrt"
    return [sys.executable, "-m", module, str(model), "--output", str(store), *flags]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(RTX)}


def test_the_command_builds_once_and_finds_the_plan_after_that(
    library: Library, tmp_path: Path
) -> None:
    arguments = command(DIGITS, tmp_path / "plans", "--buckets", "1,4", "--target", "8.9")
    ends = [
        subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
        for _ in range(2)
    ]
    assert [end.returncode for end in ends] == [0, 0], ends[0].stderr
    first, second = (Path(end.stdout.strip()) for end in ends)
    assert first == second
    assert (first / "plan").stat().st_size > 0
    key = key_of(DIGITS, Host("tensorrt_rtx", library.version, ""), SMALL)
    assert first.name == key.digest
    assert PlanStore(tmp_path / "plans").find(key) is not None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--buckets", "0"), "from 1 on"),
        (("--target", "6.1"), "compute capability"),
        (("--range", "nope=1:2:3"), "no input 'nope'"),
    ],
)
def test_the_command_says_what_is_wrong(
    library: Library, tmp_path: Path, flags: tuple[str, ...], words: str
) -> None:
    del library
    end = subprocess.run(
        command(DIGITS, tmp_path, *flags),
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert end.returncode == 1
    assert words in end.stderr
    assert "Traceback" not in end.stderr


def test_an_interrupted_command_leaves_no_plan(
    library: Library, tmp_path: Path, wait_for: Callable[[subprocess.Popen[str], str], None]
) -> None:
    del library
    model = resnet50.write(tmp_path / "models")
    arguments = command(model, tmp_path / "plans", "--buckets", "1,8", "--target", "8.9")
    with subprocess.Popen(
        arguments, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        wait_for(process, "step")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        rest = process.stderr.read()
        assert process.wait(60) == 1
    assert "cancelled" in rest
    assert list((tmp_path / "plans").glob("*/plan")) == []
