"""Every call into TensorRT, and every double of it, beside the real classes of three flavours."""

from __future__ import annotations

import inspect
import re

import pytest

from tests.bindings.calls import names, uses
from tests.bindings.flavours import FLAVOURS, Bindings, Flavour, bindings
from tests.fakes import tensorrt, tensorrt_builder, tensorrt_rtx

ONLY_RTX = {
    "ComputeCapability",
    "DynamicShapesKernelSpecializationStrategy",
    "EngineInvalidityDiagnostics",
    "EngineValidity",
}
"""Names of the module that are asked for before they are used."""
ONLY_RTX_MEMBERS = {
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("IExecutionContext", "is_stream_capturable"),
    ("IRuntimeCache", "deserialize"),
    ("IRuntimeCache", "serialize"),
    ("IRuntimeConfig", "create_runtime_cache"),
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"),
    ("IRuntimeConfig", "get_runtime_cache"),
    ("IRuntimeConfig", "set_runtime_cache"),
    ("Runtime", "get_engine_validity"),
}
CLASSES = (
    "Builder",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IRuntimeCache",
    "IRuntimeConfig",
    "ITensor",
    "ITimingCache",
    "OnnxParser",
    "ParserError",
    "Runtime",
)
DOUBLES: tuple[tuple[type, str, set[str]], ...] = (
    (
        tensorrt.ExecutionContext,
        "IExecutionContext",
        {"engine", "profile", "shapes", "addresses", "scratch", "allocators", "told"},
    ),
    (tensorrt.CudaEngine, "ICudaEngine", {"allows"}),
    (tensorrt.Runtime, "Runtime", {"works", "launched", "fail", "when_run"}),
    (tensorrt_builder.ITimingCache, "ITimingCache", set()),
    (tensorrt_builder.BuilderConfig, "IBuilderConfig", {"cache"}),
    (tensorrt_rtx.RtxContext, "IExecutionContext", set()),
    (tensorrt_rtx.RtxEngine, "ICudaEngine", set()),
    (tensorrt_rtx.IRuntimeConfig, "IRuntimeConfig", set()),
    (tensorrt_rtx.IRuntimeCache, "IRuntimeCache", set()),
)
"""A double, the class that it stands for, and what it has for tests."""


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


@pytest.fixture
def real(flavour: Flavour) -> Bindings:
    return bindings(flavour)


@pytest.fixture
def rtx(real: Bindings) -> bool:
    return "ComputeCapability" in real.names


def test_these_are_the_versions_that_are_meant(flavour: Flavour, real: Bindings) -> None:
    begin = {"TensorRT-RTX": "1.7.", "TensorRT 10": "10.16.", "TensorRT 11": "11."}
    assert real.version.startswith(begin[flavour.name])


def test_the_module_has_every_name_that_is_used(real: Bindings, rtx: bool) -> None:
    missing = names() - real.names
    assert missing == (set() if rtx else ONLY_RTX)


def test_every_use_of_a_member_is_of_a_class_that_has_it(real: Bindings, rtx: bool) -> None:
    members = {name for kind in CLASSES for name in real.classes.get(kind, {})}
    found = uses(members)
    assert len(found) > 40
    unknown = [use for use in found if use.kind is None]
    assert unknown == []
    assert [use for use in found if use.named] == []
    for use in found:
        if rtx or (use.kind, use.member) not in ONLY_RTX_MEMBERS:
            assert use.member in real.classes[str(use.kind)], use


def test_every_call_has_as_many_arguments_as_the_real_one_takes(real: Bindings, rtx: bool) -> None:
    members = {name for kind in CLASSES for name in real.classes.get(kind, {})}
    checked = 0
    for use in uses(members):
        if use.arguments is None or (not rtx and (use.kind, use.member) in ONLY_RTX_MEMBERS):
            continue
        text = real.classes[str(use.kind)][use.member]
        assert any(least <= use.arguments <= most for least, most in arities(text)), (use, text)
        checked += 1
    assert checked > 25


@pytest.mark.parametrize("double", DOUBLES, ids=lambda one: one[0].__name__)
def test_what_a_double_has_the_real_class_has_and_takes(
    real: Bindings, rtx: bool, double: tuple[type, str, set[str]]
) -> None:
    own_class, kind, own = double
    for name in (one for one in vars(own_class) if not one.startswith("_") and one not in own):
        if not rtx and ((kind, name) in ONLY_RTX_MEMBERS or kind == "IRuntimeCache"):
            continue
        if name == "create_runtime_config" and name not in real.classes[kind]:
            continue
        assert name in real.classes[kind], name
        member, text = vars(own_class)[name], real.classes[kind][name]
        if inspect.isfunction(member) and text:
            taken = len(inspect.signature(member).parameters) - 1
            assert any(least <= taken <= most for least, most in arities(text)), (name, text)


@pytest.mark.parametrize(
    ("kind", "enumeration"),
    [
        ("DataType", tensorrt.DataType),
        ("TensorIOMode", tensorrt.TensorIOMode),
        ("ExecutionContextAllocationStrategy", tensorrt.ExecutionContextAllocationStrategy),
    ],
)
def test_enumerations_have_the_real_names(real: Bindings, kind: str, enumeration: type) -> None:
    assert [one.name for one in enumeration if one.name not in real.classes[kind]] == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "methods"),
    [
        ("ILogger", {"log": 2}),
        ("IProgressMonitor", {"phase_start": 3, "step_complete": 2, "phase_finish": 1}),
        ("IErrorRecorder", {"get_error_code": 1, "get_error_desc": 1, "report_error": 2}),
    ],
)
def test_what_tensorrt_calls_of_ours_has_its_arguments(
    real: Bindings, kind: str, methods: dict[str, int]
) -> None:
    for name, count in methods.items():
        text = real.classes[kind][name]
        assert (count, count) in arities(text), text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(self: x.C) -> bool", [(0, 0)]),
        ("f(self: x.C, a: dict[str, int], b: int = <E.A: 0>) -> None", [(1, 2)]),
        (
            "f(*args, **kwargs)\n1. f(self: C, a: int) -> None\n2. f(self: C) -> None",
            [(1, 1), (0, 0)],
        ),
        ("f(self: C, a: typing.Tuple[int, int] = (1, 2)) -> None", [(0, 1)]),
    ],
)
def test_signatures_are_read(text: str, expected: list[tuple[int, int]]) -> None:
    assert arities(text) == expected


def arities(text: str) -> list[tuple[int, int]]:
    """Return the fewest and the most arguments of each overload, as pybind11 describes them."""
    found = []
    for begin in re.finditer(r"\(self: ", text):
        parts, depth, last = [], 0, begin.start() + 1
        for index in range(begin.start() + 1, len(text)):
            sign = text[index]
            if depth == 0 and sign in ",)":
                parts.append(text[last:index])
                last = index + 1
                if sign == ")":
                    break
            depth += (sign in "[(<") - (sign in "])>" and text[index - 1] != "-")
        given = parts[1:]
        found.append((sum("=" not in part for part in given), len(given)))
    return found
