"""Opens a model as a plan: from the store, checked against the model before it serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inferd_engines.delegate import Delegate
from inferd_engines.engine import (
    Array,
    Engine,
    EngineError,
    EngineOptions,
    Opener,
    Overridable,
)
from inferd_engines.model_files import folder_states
from inferd_engines.onnx_file import ORT_SUFFIX
from inferd_engines.tensorrt.cache_store import runtime_cache
from inferd_engines.tensorrt.device import Device, load_driver, open_device
from inferd_engines.tensorrt.engine import Pending, TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused, TensorRTError
from inferd_engines.tensorrt.host import cuda_version, host_of
from inferd_engines.tensorrt.judge import Judge, Latency, latencies_in
from inferd_engines.tensorrt.key import PlanKey, compatible, key_of
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.options import CURRENT, BuildOptions, blocks, options_from
from inferd_engines.tensorrt.shim import Library, find
from inferd_engines.tensorrt.store import PlanStore, StoredPlan
from inferd_engines.tensorrt.tensors import check_datatypes


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plan that is not there."""

    model: Path
    key: PlanKey
    options: BuildOptions


@dataclass(frozen=True, slots=True)
class Gpu:
    """What plans run on. Found once for a process."""

    library: Library
    device: Device


def find_gpu() -> Gpu:
    """Find TensorRT and the first GPU of this host.

    Raises:
        TensorRTError: there is no TensorRT, no driver, no GPU or no pycuda.
    """
    library = find()
    device = open_device(load_driver())
    return Gpu(library, device)


class TensorRTOpener:
    """Opens plans. Any thread may call."""

    def __init__(
        self,
        store: PlanStore,
        reference: Opener,
        missing: Callable[[Wanted], TensorRTError],
        find: Callable[[], Gpu] = find_gpu,
        clock: Callable[[], float] = time.monotonic,
        block: bool = False,
    ) -> None:
        """Prepare; nothing is looked for yet.

        Args:
            store: of the plans.
            reference: opens the engine that plans are compared with, and that knows the signature.
            missing: told of a plan that is not there; returns why, for who asked.
            find: looks for TensorRT and a GPU; called once if it finds them.
            clock: monotonic seconds, to time plans with.
            block: True to sleep while the GPU runs, for models that say nothing of it.
        """
        self._store = store
        self._reference = reference
        self._missing = missing
        self._find = find
        self._block = block
        self._judge = Judge(store, clock)
        self._gpu: Gpu | None = None
        self._lock = threading.Lock()

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open a model's plan.

        Raises:
            TensorRTError: there is no GPU, or no plan yet, or it cannot be used.
        """
        if path.suffix == ORT_SUFFIX:
            raise PlanRefused("TensorRT reads ONNX files, and this model is an ORT file")
        gpu = self._found()
        before = folder_states(path.parent)
        block = blocks(options.extra, self._block)
        wanted = wanted_on(gpu, path, options_from(options.extra))
        check_datatypes(path)
        plan = self._store.find(wanted.key)
        if plan is None:
            raise self._missing(wanted)
        reference = self._reference(
            path,
            EngineOptions(
                options.threads,
                libraries=options.libraries,
                files=options.files,
                cores=options.cores,
            ),
        )
        if folder_states(path.parent) != before:
            reference.close()
            raise PlanRefused(f"the files in {path.parent} changed while the model was loaded")
        gpu.device.enter()
        try:
            engine = self._open(gpu, wanted, plan, reference, block)
        except BaseException:
            gpu.device.leave()
            raise
        finally:
            reference.close()
        return engine

    def _found(self) -> Gpu:
        with self._lock:
            if self._gpu is None:
                self._gpu = self._find()
            return self._gpu

    def _open(
        self, gpu: Gpu, wanted: Wanted, plan: StoredPlan, reference: Engine, block: bool
    ) -> OnDevice:
        signature, options = reference.signature, wanted.options
        refuse_optional(reference)
        cache = runtime_cache(self._store.folder, wanted.key, gpu.device.gpu, cuda_version())
        before = cache.read() if gpu.library.ahead_of_time else b""
        engine = load(
            gpu.library,
            gpu.device,
            plan.data,
            signature,
            options,
            block=block,
            runtime_cache=before,
        )
        try:
            report = self._judge.report(engine, reference, wanted.key, wanted.model, options)
            cache.keep(before, engine.runtime_cache())
        except EngineError as error:
            if not error.fatal:
                engine.close()
            raise
        except BaseException:
            engine.close()
            raise
        return OnDevice(engine, gpu.device, latencies_in(report))


class OnDevice(Delegate):
    """An engine whose thread has the device's context as long as it is open."""

    def __init__(
        self, engine: TensorRTEngine, device: Device, latencies: Sequence[Latency]
    ) -> None:
        super().__init__(engine)
        self._halves = engine
        self._device: Device | None = device
        self.latencies = latencies
        """Of its buckets, as they were when the plan was accepted; empty if it was not timed."""

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Pending:
        """As the engine's."""
        return self._halves.begin(inputs, rows)

    def finish(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """As the engine's."""
        return self._halves.finish(begun, outputs)

    def close(self) -> None:
        """Give everything back, the context last. Safe to call twice."""
        if self._device is None:
            return
        device, self._device = self._device, None
        try:
            self._engine.close()
        finally:
            device.leave()


def refuse_optional(reference: Engine) -> None:
    """Refuse a model of which a plan would know less than callers may say.

    Raises:
        PlanRefused: it has inputs that may be left out, whose values a plan makes constants.
    """
    optional = reference.overridable if isinstance(reference, Overridable) else ()
    if optional:
        names = ", ".join(repr(tensor.name) for tensor in optional)
        raise PlanRefused(
            f"callers may give {names} or leave that out, and a plan has it as a constant"
        )


def wanted_on(gpu: Gpu, model: Path, options: BuildOptions) -> Wanted:
    """Return which plan a model needs on a GPU.

    Raises:
        PlanRefused: it is asked for with other compute capabilities than the GPU's.
    """
    here = gpu.device.gpu
    if gpu.library.ahead_of_time:
        options = replace(options, targets=targets_for(gpu, options.targets))
    host = compatible(host_of(gpu.library, options, lambda: here), options)
    return Wanted(model, key_of(model, host, options), options)


def targets_for(gpu: Gpu, asked: Sequence[str]) -> tuple[str, ...]:
    """Return the compute capabilities that a plan is for: those asked for, or that of the GPU.

    Raises:
        PlanRefused: the GPU has none of those that were asked for.
    """
    here = gpu.device.gpu.capability
    own = here if here in gpu.library.capabilities else CURRENT
    if asked and not {own, CURRENT} & set(asked):
        raise PlanRefused(
            f"tensorrt.targets are {', '.join(asked)}, and this GPU is of capability {here}"
        )
    return tuple(asked) or (own,)
