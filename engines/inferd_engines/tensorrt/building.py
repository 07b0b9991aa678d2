"""Puts a plan into a store, with what TensorRT measured for it."""

from __future__ import annotations

from pathlib import Path

from inferd_engines.tensorrt.builder import Builder
from inferd_engines.tensorrt.cache_store import timing_cache
from inferd_engines.tensorrt.key import Host, PlanKey
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.progress import Build
from inferd_engines.tensorrt.shim import Library
from inferd_engines.tensorrt.store import PlanStore


def add_plan(
    folder: Path,
    key: PlanKey,
    model: Path,
    library: Library,
    host: Host,
    options: BuildOptions,
    build: Build | None = None,
) -> None:
    """Build a plan and publish it; blocks, for seconds to many minutes.

    Args:
        folder: of the store.
        key: of the plan.
        model: ONNX file.
        library: that builds.
        host: that builds, however compatible the plan is.
        options: how.
        build: tells how far it is, and may cancel.

    Raises:
        BuildFailed: the model cannot be read, or does not fit the options; or it was cancelled.
        OSError: the plan cannot be written.
    """
    builder, cache = Builder(library), timing_cache(folder, host, options.targets)
    before = cache.read() if library.timing_cache else b""
    plan, after = builder.build(model, options, build, before)
    PlanStore(folder).publish(key, plan, {"precision": options.precision})
    cache.keep(before, after, builder.combined)
