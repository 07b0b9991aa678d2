"""The small parts: options as text, what TensorRT said, faults, memory, the device."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.engine import Tensor
from inferd_engines.tensorrt.budget import RESERVE, Needs, shortage
from inferd_engines.tensorrt.buffers import ALIGNMENT, arrange
from inferd_engines.tensorrt.command import configure, options_of
from inferd_engines.tensorrt.device import load_driver, open_device
from inferd_engines.tensorrt.errors import (
    BuildFailed,
    DeviceMissing,
    LibraryMissing,
    TensorRTError,
    lacks_memory,
)
from inferd_engines.tensorrt.host import host_of
from inferd_engines.tensorrt.key import Gpu
from inferd_engines.tensorrt.options import COMPATIBILITIES, PRECISIONS, BuildOptions
from inferd_engines.tensorrt.profiles import Range
from inferd_engines.tensorrt.recording import Recording
from inferd_engines.tensorrt.shim import Library, find, required
from inferd_engines.tensorrt.texts import flags_of, options_from, others

from tests.device.standin import NO_DEVICE
from tests.device.standin import device as one_device
from tests.engines.tensorrt.bench import standin

SHAPES = st.lists(st.integers(1, 99), min_size=1, max_size=3)
RANGES = SHAPES.map(lambda s: Range(tuple(s), tuple(s), tuple(2 * size for size in s)))


@given(
    st.builds(
        BuildOptions,
        precision=st.sampled_from(PRECISIONS),
        buckets=st.lists(st.integers(1, 64), min_size=1, max_size=4).map(tuple),
        ranges=st.dictionaries(st.from_regex(r"[a-z_.:]+", fullmatch=True), RANGES, max_size=2),
        batched=st.booleans(),
        targets=st.lists(st.sampled_from(["8.9", "12.0", "current"]), max_size=2).map(tuple),
        optimization_level=st.none() | st.integers(0, 5),
        workspace_bytes=st.none() | st.integers(1, 99).map(lambda mib: mib << 20),
        version_compatible=st.booleans(),
        hardware_compatibility=st.sampled_from(COMPATIBILITIES),
    )
)
def test_a_process_of_its_own_builds_with_the_same_options(options: BuildOptions) -> None:
    import argparse

    parser = argparse.ArgumentParser()
    configure(parser)
    flags = ["m.onnx", "--output", "plans", *flags_of(options)]
    assert options_of(parser.parse_args(flags)) == options


def test_model_yaml_says_how_its_plan_is_built() -> None:
    entries = {
        "tensorrt.precision": "fp16",
        "tensorrt.buckets": "1,8",
        "tensorrt.range.tokens": "1:64:512",
        "session.use_device_allocator_for_initializers": "1",
    }
    assert options_from(entries) == BuildOptions(
        precision="fp16", buckets=(1, 8), ranges={"tokens": Range((1,), (64,), (512,))}
    )
    assert list(others(entries)) == ["session.use_device_allocator_for_initializers"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("tensorrt.precison", "fp16", "tensorrt.precison is unknown"),
        ("tensorrt.precision", "fp12", "'fp12' is none of fp32"),
        ("tensorrt.buckets", "1,x", "'x'"),
        ("tensorrt.buckets", "0", "from 1 on"),
        ("tensorrt.range.a", "1:2", "not MIN:OPT:MAX"),
    ],
)
def test_what_cannot_be_read_is_said(name: str, text: str, words: str) -> None:
    with pytest.raises(BuildFailed, match=words):
        options_from({name: text})


def test_a_failure_carries_what_was_said_last_and_once() -> None:
    recording = Recording(kept=2)
    for text in ("old", "no kernel", "no kernel "):
        recording.said("ERROR", text)
    recording.said("INFO", "10 layers")
    recording.failed(3, "no kernel")
    recording.failed(4, "too much")
    assert recording.explain("it failed") == "it failed: no kernel | too much"
    assert not recording.overflowed
    recording.failed(5, "more")
    assert recording.overflowed
    recording.clear()
    assert recording.explain("it failed") == "it failed, and did not say why"


@pytest.mark.parametrize("value", [None, False])
def test_what_tensorrt_does_not_raise_is_raised(value: bool | None) -> None:
    recording = Recording()
    recording.said("ERROR", "the reason")
    with pytest.raises(TensorRTError, match="could not make it: the reason"):
        required(value, "make it", recording)
    assert required(True, "make it", recording)


def test_a_library_that_is_not_there_is_said_for_every_flavour() -> None:
    def load(name: str) -> object:
        raise {"a": ImportError("no a"), "b": OSError("no libb.so")}[name]

    with pytest.raises(LibraryMissing, match=r"a: no a; b: no libb.so"):
        find(("a", "b"), load)


def test_only_flavours_that_are_installed_give_a_reason() -> None:
    def load(name: str) -> object:
        wanted = "cuda_runtime" if name == "b" else name
        raise ModuleNotFoundError(f"No module named {wanted!r}", name=wanted)

    with pytest.raises(LibraryMissing, match=r"imported: b: No module named 'cuda_runtime'$"):
        find(("a", "b"), load)
    with pytest.raises(LibraryMissing, match=r"none of a, c is installed \(pip install 'inferd"):
        find(("a", "c"), load)


@pytest.mark.parametrize(
    ("text", "memory"),
    [
        ("cuMemAlloc failed: out of memory", True),
        ("[resizingAllocator] CUDA_ERROR_OUT_OF_MEMORY", True),
        ("cuMemcpyHtoDAsync failed: invalid argument", False),
        ("the shape is not allowed", False),
    ],
)
def test_errors_that_a_smaller_batch_may_not_have_are_known(text: str, memory: bool) -> None:
    assert lacks_memory(text) is memory


@given(st.lists(st.lists(st.integers(0, 9), max_size=3).map(tuple), min_size=1, max_size=6))
def test_tensors_lie_apart_and_aligned(shapes: list[tuple[int, ...]]) -> None:
    tensors = [Tensor(f"T{i}", np.dtype(np.float32), shape) for i, shape in enumerate(shapes)]
    plan = arrange(tensors, {f"T{i}": shape for i, shape in enumerate(shapes)})
    ends = 0
    for tensor in tensors:
        found = plan.places[tensor.name]
        assert found.offset >= ends
        assert found.offset % ALIGNMENT == 0
        # Even an empty one has an address of its own.
        ends = found.offset + max(1, found.nbytes)
    assert ends <= plan.nbytes


def test_a_budget_names_what_takes_the_memory() -> None:
    needs = Needs(weights=100 << 20, activations=50 << 20, arena=1 << 20, graphs=2)
    assert shortage(needs, needs.total) == ""
    assert "weights 100, activations 50, inputs and outputs 1, 2 graphs" in shortage(
        needs, needs.total - 1
    )
    assert needs.total > RESERVE


def missing(name: str) -> object:
    raise ModuleNotFoundError(f"No module named {name!r}")


def without_driver(name: str) -> object:
    raise ImportError("libcuda.so.1: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (missing, "pycuda is not installed"),
        (without_driver, "no NVIDIA driver here .*libcuda"),
    ],
)
def test_a_host_without_a_gpu_says_what_it_lacks(load: object, words: str) -> None:
    with pytest.raises(DeviceMissing, match=words):
        load_driver(load)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("count", "init", "words"), [(1, NO_DEVICE, "does not start"), (0, 0, "finds no GPU")]
)
def test_a_driver_without_a_gpu_says_so(count: int, init: int, words: str) -> None:
    here = standin()
    here.devices(count, init)
    with pytest.raises(DeviceMissing, match=words):
        load_driver()
    here.mend()


def test_a_context_is_current_only_where_it_was_entered() -> None:
    here, device = standin(), one_device()
    assert (device.gpu.name, device.gpu.capability, device.gpu.processors) == (
        "Fake GPU",
        "9.0",
        132,
    )
    with pytest.raises(device.cuda.LogicError, match="invalid device context"):
        device.free_bytes()
    with device.current():
        assert device.free_bytes() <= 1 << 30
        assert here.depth == 1
    assert here.depth == 0


def test_a_plan_for_the_gpu_of_a_host_without_one_says_so() -> None:
    def find_gpu() -> Gpu:
        raise DeviceMissing("the NVIDIA driver finds no GPU")

    library = Library(None, "tensorrt", "0")
    with pytest.raises(DeviceMissing, match=r"for the GPU of this host, and the NVIDIA driver"):
        host_of(library, BuildOptions(), find_gpu)


def test_a_gpu_that_is_not_there_is_named() -> None:
    standin()
    driver = load_driver()
    with pytest.raises(DeviceMissing, match="GPU 1 cannot be used"):
        open_device(driver, 1)
