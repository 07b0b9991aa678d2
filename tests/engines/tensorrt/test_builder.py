"""Real plans, built by TensorRT-RTX without a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd_engines.engine import EngineError
from inferd_engines.tensorrt.background import reason_of
from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.errors import BuildCancelled, BuildFailed, PlanRefused
from inferd_engines.tensorrt.key import Host, key_of
from inferd_engines.tensorrt.loading import REASONS, check_valid, meanings
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


@pytest.fixture
def configured(library: Library, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[set[str]]]:
    """Build digits, and return the flags that each of TensorRT's builds had."""

    def build(options: BuildOptions, fails: int = 0) -> list[set[str]]:
        kept, names = [], ("TF32", "REQUIRE_USER_ALLOCATION")
        serialize = Builder._serialize
        trt = library.module

        class Watched:
            """TensorRT's builder, which may fail at first."""

            def __init__(self, builder: object) -> None:
                self.builder = builder

            def build_serialized_network(self, network: object, config: object) -> object:
                flags = {one for one in names if config.get_flag(getattr(trt.BuilderFlag, one))}
                kept.append(flags)
                if len(kept) <= fails:
                    return None
                return self.builder.build_serialized_network(network, config)

        monkeypatch.setattr(
            Builder,
            "_serialize",
            lambda self, builder, *rest: serialize(self, Watched(builder), *rest),
        )
        Builder(library).build(DIGITS, options)
        return kept

    return build


def test_plans_are_built_so_that_graphs_can_hold_them_and_fp32_is_fp32(
    configured: Callable[..., list[set[str]]],
) -> None:
    assert configured(SMALL) == [{"REQUIRE_USER_ALLOCATION"}]


def test_tf32_is_a_precision_of_its_own(configured: Callable[..., list[set[str]]]) -> None:
    options = replace(SMALL, precision="tf32")
    assert configured(options) == [{"REQUIRE_USER_ALLOCATION", "TF32"}]


def test_a_model_that_graphs_cannot_hold_is_built_without_them(
    configured: Callable[..., list[set[str]]], caplog: pytest.LogCaptureFixture
) -> None:
    assert configured(SMALL, 1) == [{"REQUIRE_USER_ALLOCATION"}, set()]
    assert "no plan that CUDA graphs can hold" in caplog.messages
    with pytest.raises(BuildFailed, match="could not build"):
        configured(SMALL, 2)


def one_node(folder: Path, operator: str, inputs: int, output: int, **more: object) -> Path:
    """Save a model of one operator."""
    kinds = {1: TensorProto.FLOAT, 7: TensorProto.INT64, 11: TensorProto.DOUBLE}
    names = ["X", *more.pop("others", [])]
    graph = helper.make_graph(
        [helper.make_node(operator, names, ["Y"], name="it", **more.pop("attributes", {}))],
        "one",
        [helper.make_tensor_value_info("X", kinds[inputs], more.pop("shape", [8]))],
        [helper.make_tensor_value_info("Y", kinds[output], None)],
        more.pop("values", []),
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return saved(made, folder)


def test_an_operator_that_the_parser_lacks_is_named_in_one_sentence(
    builder: Builder, tmp_path: Path
) -> None:
    model = one_node(tmp_path, "NonZero", 1, 7)
    with pytest.raises(BuildFailed) as failed:
        builder.build(model, replace(SMALL, batched=False))
    assert str(failed.value) == (
        f"tensorrt_rtx {builder.library.version} does not have the operator NonZero (node 'it') "
        "that the model uses; ONNX Runtime serves it"
    )


def test_an_operator_that_the_builder_lacks_is_named_in_one_sentence(
    builder: Builder, tmp_path: Path
) -> None:
    limits = [
        helper.make_tensor("scores", TensorProto.FLOAT, [1, 1, 10], [0.5] * 10),
        helper.make_tensor("most", TensorProto.INT64, [1], [5]),
        helper.make_tensor("overlap", TensorProto.FLOAT, [1], [0.5]),
    ]
    model = one_node(
        tmp_path,
        "NonMaxSuppression",
        1,
        7,
        others=["scores", "most", "overlap"],
        values=limits,
        shape=[1, 10, 4],
    )
    with pytest.raises(BuildFailed) as failed:
        builder.build(model, replace(SMALL, batched=False))
    assert str(failed.value) == (
        f"tensorrt_rtx {builder.library.version} does not have an operator (node 'it') "
        "that the model uses; ONNX Runtime serves it"
    )


@pytest.mark.parametrize(("inputs", "output"), [(11, 1), (1, 11)])
def test_datatypes_that_tensorrt_would_replace_are_refused_before_the_build(
    builder: Builder, tmp_path: Path, inputs: int, output: int
) -> None:
    model = one_node(tmp_path, "Cast", inputs, output, attributes={"to": output})
    with pytest.raises(PlanRefused, match="is float64, which TensorRT does not have; ONNX Runt"):
        builder.build(model, replace(SMALL, batched=False))


def test_what_the_command_says_last_is_the_reason_and_one_line(
    tmp_path: Path, library: Library
) -> None:
    model = one_node(tmp_path, "NonZero", 1, 7)
    done = subprocess.run(
        command(model, tmp_path / "plans", "--no-batch", "--target", "8.9"),
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    reason = reason_of(done.returncode, done.stderr)
    assert reason.startswith(f"tensorrt_rtx {library.version} does not have the operator NonZero")
    assert "Assertion failed" not in reason


@pytest.mark.parametrize(
    ("code", "said", "reason"),
    [
        (1, "a line\nthe reason\n", "the reason"),
        (1, "", "its process ended with code 1"),
        (-9, "", "its process ended with signal SIGKILL"),
        (-11, "a line", "its process ended with signal SIGSEGV, and said last: a line"),
    ],
)
def test_why_a_build_failed_is_one_line(code: int, said: str, reason: str) -> None:
    assert reason_of(code, said) == reason


def test_a_plan_that_is_not_for_this_host_says_why_and_what_to_do(
    library: Library, builder: Builder
) -> None:
    trt = library.module
    recording = Recording()
    listeners_of(trt).listen(recording)
    runtime = trt.Runtime(logger_of(trt))
    with pytest.raises(PlanRefused, match="plan: its bytes are no plan; remove it from the store"):
        check_valid(trt, runtime, b"no plan" * 100, recording)
    plan, _ = builder.build(DIGITS, SMALL)
    recording.begin()
    listeners_of(trt).listen(recording)
    # There is no driver, or one that is none, of which TensorRT has no bit but a line.
    with pytest.raises(PlanRefused, match=r"(?i)does not take the plan: .*(driver|cuda)"):
        check_valid(trt, runtime, plan, recording)


def test_the_bits_of_an_invalid_plan_have_names_in_this_tensorrt(library: Library) -> None:
    bits = library.module.EngineInvalidityDiagnostics.__members__
    assert set(bits) == set(REASONS)
    both = int(bits["VERSION_MISMATCH"]) | int(bits["UNSUPPORTED_CC"])
    found = meanings(library.module, both)
    assert sorted(found) == sorted([REASONS["VERSION_MISMATCH"], REASONS["UNSUPPORTED_CC"]])
