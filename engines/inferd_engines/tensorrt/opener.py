"""Opens a model as a plan: from the store, checked against the model before it serves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inferd_engines.delegate import Delegate
from inferd_engines.engine import Array, Engine, EngineError, EngineOptions, Opener
from inferd_engines.tensorrt import gate
from inferd_engines.tensorrt.device import Device, load_driver, open_device
from inferd_engines.tensorrt.engine import TensorRTEngine
from inferd_engines.tensorrt.errors import PlanRefused, TensorRTError
from inferd_engines.tensorrt.graphs import DriverGraphs, Graphs
from inferd_engines.tensorrt.host import host_of
from inferd_engines.tensorrt.key import PlanKey, key_of
from inferd_engines.tensorrt.loading import load
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.shim import Library, find
from inferd_engines.tensorrt.store import PlanStore, StoredPlan
from inferd_engines.tensorrt.texts import CURRENT, options_from

log = logging.getLogger(__name__)
GOLDEN = "golden.npz"
"""Inputs beside a model, by name, that its plans are compared on."""
SEED = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plan that is not there."""

    model: Path
    key: PlanKey
    options: BuildOptions


@dataclass(frozen=True, slots=True)
class Gpu:
    """What plans run on: library, device, graphs. Found once for a process."""

    library: Library
    device: Device
    graphs: Graphs | None


def find_gpu() -> Gpu:
    """Find TensorRT and the first GPU of this host.

    Raises:
        TensorRTError: there is no TensorRT, no driver, no GPU or no pycuda.
    """
    library = find()
    device = open_device(load_driver())
    return Gpu(library, device, DriverGraphs())


class TensorRTOpener:
    """Opens plans. Any thread may call."""

    def __init__(
        self,
        store: PlanStore,
        reference: Opener,
        missing: Callable[[Wanted], str],
        find: Callable[[], Gpu] = find_gpu,
    ) -> None:
        """Prepare; nothing is looked for yet.

        Args:
            store: of the plans.
            reference: opens the engine that plans are compared with, and that knows the signature.
            missing: told of a plan that is not there; returns what is done about it.
            find: looks for TensorRT and a GPU; called once if it finds them.
        """
        self._store = store
        self._reference = reference
        self._missing = missing
        self._find = find
        self._gpu: Gpu | None = None
        self._lock = threading.Lock()

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open a model's plan.

        Raises:
            TensorRTError: there is no GPU, or no plan yet, or it cannot be used.
        """
        gpu = self._found()
        wanted = wanted_on(gpu, path, options_from(options.extra))
        plan = self._store.find(wanted.key)
        if plan is None:
            raise TensorRTError(self._missing(wanted))
        reference = self._reference(path, EngineOptions(options.threads))
        gpu.device.enter()
        try:
            engine = self._open(gpu, wanted, plan, reference)
        except BaseException:
            gpu.device.leave()
            raise
        finally:
            reference.close()
        return OnDevice(engine, gpu.device)

    def _found(self) -> Gpu:
        with self._lock:
            if self._gpu is None:
                self._gpu = self._find()
            return self._gpu

    def _open(
        self, gpu: Gpu, wanted: Wanted, plan: StoredPlan, reference: Engine
    ) -> TensorRTEngine:
        signature, options = reference.signature, wanted.options
        engine = load(gpu.library, gpu.device, plan.data, signature, options, gpu.graphs)
        if self._store.accepted(wanted.key):
            return engine
        try:
            self._judge(engine, reference, wanted)
        except BaseException:
            engine.close()
            raise
        return engine

    def _judge(self, engine: Engine, reference: Engine, wanted: Wanted) -> None:
        """Compare a plan with its model once, and remember what came out."""
        inputs = golden(wanted.model) or gate.drawn(
            reference.signature, wanted.options.buckets, np.random.default_rng(SEED)
        )
        report = gate.accept(engine, reference, inputs, wanted.options.precision)
        if report.problems:
            self._keep(self._store.refuse, wanted, report)
            raise PlanRefused("the plan gives other answers: " + "; ".join(report.problems))
        self._keep(self._store.accept, wanted, report)
        log.info("a plan was accepted", extra={"model": str(wanted.model)})

    def _keep(
        self,
        note: Callable[[PlanKey, Mapping[str, Any]], None],
        wanted: Wanted,
        report: gate.Report,
    ) -> None:
        """Remember what a comparison found; a store that is full or read-only is no obstacle."""
        try:
            note(wanted.key, report.as_json())
        except OSError as error:
            where = {"model": str(wanted.model), "why": str(error)}
            log.warning("a comparison could not be kept and will be made again", extra=where)


class OnDevice(Delegate):
    """An engine whose thread has the device's context as long as it is open."""

    def __init__(self, engine: TensorRTEngine, device: Device) -> None:
        super().__init__(engine)
        self._device: Device | None = device

    def close(self) -> None:
        """Give everything back, the context last. Safe to call twice."""
        if self._device is None:
            return
        device, self._device = self._device, None
        try:
            self._engine.close()
        finally:
            device.leave()


def wanted_on(gpu: Gpu, model: Path, options: BuildOptions) -> Wanted:
    """Return which plan a model needs on a GPU."""
    here = gpu.device.gpu
    if gpu.library.ahead_of_time:
        known = here.capability in gpu.library.capabilities
        options = replace(options, targets=(here.capability if known else CURRENT,))
    host = host_of(gpu.library, options, lambda: here)
    return Wanted(model, key_of(model, host, options), options)


def golden(model: Path) -> list[dict[str, Array]]:
    """Return the inputs that are kept beside a model; none if there are none.

    Raises:
        EngineError: the file cannot be read.
    """
    path = model.parent / GOLDEN
    if not path.is_file():
        return []
    try:
        with np.load(path, allow_pickle=False) as found:
            return [{name: found[name] for name in found.files}]
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read: {error}") from error
