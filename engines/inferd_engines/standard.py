"""The engines that a server chooses from: TensorRT where it has a store, then ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from inferd_engines.choice import FirstOf
from inferd_engines.devices import DeviceProblem, claim
from inferd_engines.engine import Engine, EngineOptions, Opener
from inferd_engines.onnx import open_onnx
from inferd_engines.tensorrt.options import others

if TYPE_CHECKING:
    from inferd_engines.tensorrt.background import Builds
    from inferd_engines.tensorrt.opener import Gpu, Wanted

log = logging.getLogger(__name__)
AUTO, BLOCK = "auto", "block"
CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


@dataclass(frozen=True, slots=True)
class Engines:
    """An opener, and what builds plans for it meanwhile."""

    opener: Opener
    builds: Builds | None

    def when_ended(self, then: Callable[[Path], None]) -> None:
        """Tell of the model file of every build that ended, on the thread that builds."""
        if self.builds is not None:
            self.builds.when_ended(then)


def engines_on(plan_store: str, wait: str = AUTO, device: str = "") -> Engines:
    """Return the engines of a process of `inferd serve`, after it took its GPU.

    Args:
        plan_store: folder of TensorRT plans; "" to leave TensorRT alone.
        wait: for runs on the GPU, one of `devices.WAITS`.
        device: the one that this process has for itself; "": whatever there is.

    Raises:
        DeviceProblem: that one does not work.
    """
    if device or (plan_store and wait != AUTO):
        try:
            claim(wait)
        except DeviceProblem as problem:
            if device:
                raise
            log.warning("how to wait for a GPU has no effect", extra={"why": str(problem)})
    return standard_engines(plan_store, block=wait == BLOCK)


def standard_engines(
    plan_store: str,
    find: Callable[[], Gpu] | None = None,
    build: Callable[[Path, Wanted], None] | None = None,
    block: bool = False,
) -> Engines:
    """Return the engines of `inferd serve`.

    Args:
        plan_store: folder of TensorRT plans; "" to leave TensorRT alone.
        find: looks for TensorRT and a GPU; default: on this host.
        build: puts a plan into a store; default: in a process of its own.
        block: True to sleep while the GPU runs, unless a model says otherwise.
    """
    if not plan_store:
        return Engines(open_onnx_only, None)
    # Only here, because a server without a store should not start later for it.
    from inferd_engines.tensorrt.background import Builds, build_apart
    from inferd_engines.tensorrt.opener import TensorRTOpener, find_gpu
    from inferd_engines.tensorrt.store import PlanStore

    # A build runs in a process whose folder may be another one.
    folder = Path(plan_store).absolute()
    builds = Builds(partial(build or build_apart, folder))
    store = PlanStore(folder)
    plans = TensorRTOpener(store, open_onnx_only, builds, find or find_gpu, block=block)
    return Engines(FirstOf([("TensorRT", plans), ("ONNX Runtime", open_onnx_best)]), builds)


def cpu_engines(why: str) -> Engines:
    """Return the engines of a server that was asked to use a GPU and leaves it alone.

    Args:
        why: it does; every engine tells.
    """
    from inferd_engines.tensorrt.errors import DeviceMissing

    def refuse(path: Path, options: EngineOptions) -> Engine:
        del path, options
        raise DeviceMissing(why)

    return Engines(FirstOf([("the GPU", refuse), ("ONNX Runtime", open_onnx_cpu)]), None)


def open_onnx_cpu(path: Path, options: EngineOptions) -> Engine:
    """Open a model in ONNX Runtime on the processor, whatever its options ask for.

    Raises:
        EngineError: the file is missing, damaged or not supported, or an option is unknown.
    """
    return open_onnx_only(path, replace(options, providers=(CPU,)))


def open_onnx_only(path: Path, options: EngineOptions) -> Engine:
    """Open a model in ONNX Runtime, without what its options say for TensorRT.

    Raises:
        EngineError: the file is missing, damaged or not supported, or an option is unknown.
    """
    return open_onnx(path, replace(options, extra=others(options.extra)))


def open_onnx_best(path: Path, options: EngineOptions) -> Engine:
    """Open a model in ONNX Runtime, on CUDA where that is built in and nothing else asked for.

    Raises:
        EngineError: the file is missing, damaged or not supported, or an option is unknown.
    """
    from onnxruntime import get_available_providers

    if not options.providers and CUDA in get_available_providers():
        options = replace(options, providers=(CUDA,))
    return open_onnx_only(path, options)
