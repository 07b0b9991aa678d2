"""The doubles have the names that the real classes have, and they are as unforgiving as said."""

from __future__ import annotations

import inspect

import pytest
from inferd_engines.tensorrt.shim import Library

from tests.fakes import tensorrt, tensorrt_builder


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


@pytest.mark.parametrize(
    ("double", "real"),
    [
        (tensorrt.ExecutionContext, "IExecutionContext"),
        (tensorrt.CudaEngine, "ICudaEngine"),
        (tensorrt.Runtime, "Runtime"),
        (tensorrt_builder.ITimingCache, "ITimingCache"),
        (tensorrt_builder.BuilderConfig, "IBuilderConfig"),
    ],
)
def test_what_a_double_has_the_real_class_has(library: Library, double: type, real: str) -> None:
    own = {
        "ExecutionContext": {
            "engine",
            "profile",
            "shapes",
            "addresses",
            "scratch",
            "allocators",
            "told",
        },
        "CudaEngine": {"allows"},
        "Runtime": {"works", "launched", "fail", "when_run"},
        "ITimingCache": set(),
        "BuilderConfig": {"cache"},
    }[double.__name__]
    found = getattr(library.module, real)
    missing = [name for name in public(double) if name not in own and not hasattr(found, name)]
    assert missing == []


def test_what_the_engine_calls_of_the_real_classes_takes_what_it_is_given(
    library: Library,
) -> None:
    trt = library.module
    for kind, method, words in (
        (trt.IExecutionContext, "set_optimization_profile_async", "stream_handle"),
        (trt.IExecutionContext, "set_input_shape", "name"),
        (trt.IExecutionContext, "set_tensor_address", "memory"),
        (trt.IExecutionContext, "execute_async_v3", "stream_handle"),
        (trt.IExecutionContext, "set_device_memory", "size"),
        (trt.IExecutionContext, "set_output_allocator", "output_allocator"),
        (trt.ICudaEngine, "is_shape_inference_io", "name"),
        (trt.ICudaEngine, "get_device_memory_size_for_profile_v2", "profile_index"),
        (trt.ICudaEngine, "create_execution_context", "strategy"),
        (trt.Runtime, "deserialize_cuda_engine", "serialized_engine"),
        (trt.IBuilderConfig, "set_timing_cache", "ignore_mismatch"),
        (trt.ITimingCache, "combine", "input_cache"),
    ):
        text = inspect.getdoc(getattr(kind, method)) or ""
        assert words in text, (method, text)


def test_datatypes_and_enumerations_have_the_real_names(library: Library) -> None:
    trt = library.module
    for double, real in (
        (tensorrt.DataType, trt.DataType),
        (tensorrt.TensorIOMode, trt.TensorIOMode),
        (tensorrt.ExecutionContextAllocationStrategy, trt.ExecutionContextAllocationStrategy),
        (tensorrt.ILogger.Severity, trt.ILogger.Severity),
    ):
        assert [one.name for one in double if not hasattr(real, one.name)] == []
