"""CUDA graphs: which buckets run as one, found out at load, before anybody is answered by it.

A graph that holds nothing, or copies alone, raises nothing and answers with what lies there. So
each one is tried on inputs that no run before it has left on the device, over outputs that were
overwritten, and has to give what a plain run gives.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from inferd_engines.arrays import shape_of
from inferd_engines.engine import Array, Signature
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.lane import Form, Lane
from inferd_engines.tensorrt.libcuda import DriverError, Libcuda
from inferd_engines.tensorrt.loaded import Loaded
from inferd_engines.tensorrt.trial import draw

log = logging.getLogger(__name__)
SEED = 0
DRAWS = 8
"""Attempts to draw inputs that differ."""
SPREAD = 4.0
"""Times as far from a plain run as two plain runs are from each other, a graph's outputs may be."""
WAYS = 2
"""Graphs of a bucket and lane: with the copies of inputs to the device, and without."""

Inputs = Mapping[str, Array]


class Trial(NamedTuple):
    """What a bucket's graphs are tried on: two batches that differ, and none is zeros alone."""

    bucket: int
    first: Inputs
    second: Inputs


class Fixed:
    """Forms and graphs of a plan's runs whose shapes never change. With the context current."""

    def __init__(self, device: Device, *, graphs: bool) -> None:
        """Begin with nothing; without `graphs` there will be forms only."""
        self._device = device
        self._libcuda = device.libcuda
        self._graphs = graphs
        self._forms: dict[tuple[int, int], Form] = {}
        self._executables: dict[tuple[int, int, bool], int] = {}

    def prepare(self, lanes: Sequence[Lane], loaded: Loaded) -> None:
        """Fix the forms that cannot change, and capture the runs that have such forms only.

        A run in which TensorRT asks for memory cannot be captured.

        Raises:
            TensorRTError: TensorRT refused a shape, or the device is broken.
        """
        own = int(bool(loaded.buckets))
        signature = loaded.signature
        if any(None in tensor.shape[own:] for tensor in signature.inputs):
            return
        for profile, bucket in enumerate(loaded.buckets or (0,)):
            trial = trial_of(signature, bucket)
            shapes = [trial.first[tensor.name].shape for tensor in signature.inputs]
            for index, lane in enumerate(lanes):
                form = self._forms[index, profile] = lane.form(profile, shapes)
                if self._graphs and not loaded.dependent:
                    self._capture(index, lane, form, trial)

    def form(self, index: int, profile: int) -> Form | None:
        """Return the form of a lane's bucket; None if it changes from run to run."""
        return self._forms.get((index, profile))

    def executable(self, index: int, profile: int, *, copies: bool) -> int | None:
        """Return the graph of a lane's bucket, with or without the copies of its inputs."""
        return self._executables.get((index, profile, copies))

    def close(self) -> None:
        """Give the graphs back."""
        for executable in self._executables.values():
            self._libcuda.destroy_executable(executable)
        self._executables.clear()
        self._forms.clear()

    def _capture(self, index: int, lane: Lane, form: Form, trial: Trial) -> None:
        for copies in (True, False):
            found = capture(self._device, lane, form, trial, copies=copies)
            if found is None:
                # What cannot be captured without copies cannot be with them, either.
                return
            self._executables[index, form.profile, copies] = found


def capture(device: Device, lane: Lane, form: Form, trial: Trial, *, copies: bool) -> int | None:
    """Capture a run as a graph; None, with the reason in the log, if that cannot be.

    TensorRT updates what it deferred in the first run after a change of shapes, so one plain run
    comes first.

    Args:
        device: whose context is current.
        lane: that runs.
        form: of the run.
        trial: what it is tried on.
        copies: True if inputs in pinned memory are copied within the graph.

    Raises:
        TensorRTError: the device is broken.
    """
    libcuda = device.libcuda
    executable, why = 0, "TensorRT cannot run this plan within a graph"
    try:
        plain(lane, form, trial.first, trial.bucket)
        if lane.capturable(form.profile):
            executable = record(libcuda, lane, form, copies=copies)
            why = problem_with(libcuda, lane, form, trial, executable, copies=copies)
    except (TensorRTError, device.cuda.Error) as error:
        why = str(error)
    if not why:
        return executable
    if executable:
        with suppress(DriverError):
            libcuda.destroy_executable(executable)
    if not device.works():
        raise TensorRTError(why, fatal=True)
    log.warning("no CUDA graph", extra={"profile": form.profile, "why": why})
    return None


def record(libcuda: Libcuda, lane: Lane, form: Form, *, copies: bool) -> int:
    """Capture one run and make it ready.

    Raises:
        TensorRTError: TensorRT or the driver refused; the first error of several.
        pycuda.driver.Error: a copy was refused.
    """
    with uncollected():
        libcuda.begin_capture(lane.handle)
        try:
            if copies:
                lane.copy_in(form.there)
            lane.enqueue(form)
        except BaseException:
            # The stream cannot be used while it is captured.
            with suppress(DriverError):
                libcuda.destroy(libcuda.end_capture(lane.handle))
            raise
        graph = libcuda.end_capture(lane.handle)
    try:
        return libcuda.instantiate(graph)
    finally:
        # What was made of it stays.
        libcuda.destroy(graph)


@contextmanager
def uncollected() -> Iterator[None]:
    """Keep Python from giving back other objects' device memory, which ends a capture."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def problem_with(
    libcuda: Libcuda, lane: Lane, form: Form, trial: Trial, executable: int, *, copies: bool
) -> str:
    """Say how a graph's outputs differ from those of plain runs; "" if they do not.

    Raises:
        TensorRTError: it cannot be launched, or a plain run failed.
        pycuda.driver.Error: something broke.
    """
    expected = [plain(lane, form, trial.second, trial.bucket) for _ in range(2)]
    # From here on nothing of those runs is on the device.
    plain(lane, form, trial.first, trial.bucket)
    lane.poison(form)
    given = lane.put(form, trial.second, trial.bucket)
    if not copies:
        lane.copy_in(given)
    libcuda.launch(executable, lane.handle)
    lane.stream.synchronize()
    return difference(outputs_of(lane, form), expected[0], expected[1])


def plain(lane: Lane, form: Form, inputs: Inputs, bucket: int) -> dict[str, Array]:
    """Run without a graph, and return copies of all outputs."""
    lane.copy_in(lane.put(form, inputs, bucket))
    lane.enqueue(form)
    lane.stream.synchronize()
    return outputs_of(lane, form)


def outputs_of(lane: Lane, form: Form) -> dict[str, Array]:
    """Return copies of all outputs."""
    return {
        tensor.name: (lane.dependent(tensor) if view is None else view.array).copy()
        for tensor, view in form.outputs
    }


def difference(got: Inputs, one: Inputs, other: Inputs) -> str:
    """Say in which output a graph differs from two plain runs of the same inputs; "" if in none.

    Bytes count, so that a NaN is like itself. Where plain runs differ, as sums in any order do, a
    graph may differ a little more.

    Args:
        got: of the graph.
        one: of a plain run.
        other: of a second one.
    """
    for name, expected in one.items():
        if got[name].tobytes() == expected.tobytes():
            continue
        allowed, found = spread(expected, other[name]), spread(expected, got[name])
        if not found <= SPREAD * allowed:
            return f"as a graph, output {name!r} is another than without"
    return ""


def spread(one: Array, other: Array) -> float:
    """Return how far two arrays are apart: the largest difference, or the part that differs."""
    if one.dtype.kind in "iub":
        return float((one != other).mean()) if one.size else 0.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return float("inf")
    known = np.isfinite(a)
    return float(np.abs(a[known] - b[known]).max(initial=0.0))


def trial_of(signature: Signature, bucket: int) -> Trial:
    """Draw two batches for a bucket."""
    generator = np.random.default_rng(SEED)
    first, second = drawn(signature, bucket, generator), drawn(signature, bucket, generator)
    for _ in range(DRAWS):
        if all(differ(first[name], second[name]) for name in first):
            break
        first, second = second, drawn(signature, bucket, generator)
    return Trial(bucket, first, second)


def drawn(signature: Signature, bucket: int, generator: Any) -> Inputs:
    """Draw one batch."""
    return {
        tensor.name: draw(tensor, shape_of(tensor, bucket), generator)
        for tensor in signature.inputs
    }


def differ(one: Array, other: Array) -> bool:
    """True if two inputs are not alike, and neither is zeros alone."""
    return one.tobytes() != other.tobytes() and bool(one.any()) and bool(other.any())
