"""A plan behind the engine interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from inferd_engines.arrays import check_inputs, write_into, zeros
from inferd_engines.engine import Array, EngineError, PlanState, Signature, Tensor
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.faults import Fault, classify
from inferd_engines.tensorrt.graphs import Graphs
from inferd_engines.tensorrt.lane import Lane, Loaded, Shapes
from inferd_engines.tensorrt.profiles import bucket_for, fits
from inferd_engines.tensorrt.replay import Captured, capture

LANES = 2


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that was begun."""

    lane: int
    """Index."""
    shapes: Shapes
    rows: int


class TensorRTEngine:
    """One plan on one GPU. Opened, used and closed by one thread, where its context is current.

    `begin` and `finish` are the two halves of `run`; between them, the next run may begin, whose
    copies then overlap with this one's work.
    """

    def __init__(
        self, device: Device, loaded: Loaded, name: str, graphs: Graphs | None, lanes: int = LANES
    ) -> None:
        """Take all memory, and capture what can be.

        Args:
            device: whose context is current.
            loaded: the plan.
            name: such as "tensorrt/NVIDIA H100".
            graphs: of this host; None to run without.
            lanes: runs that may overlap.

        Raises:
            EngineError: there is no memory for it, or TensorRT refused.
        """
        self.signature: Signature = loaded.signature
        self.name = name
        self.reason = ""
        self.plan_state = PlanState.READY
        self.steady = True
        self.buckets: Sequence[int] = loaded.buckets
        self._device = device
        self._loaded: Loaded | None = loaded
        self._graphs = graphs
        self._captured: dict[tuple[int, int], Captured] = {}
        self._fixed: dict[int, Shapes] = {}
        # Of the lanes without a run, the one that has been free longest comes first.
        self._free = deque(range(lanes))
        self._lanes: list[Lane] = []
        try:
            for _ in range(lanes):
                self._lanes.append(Lane(device, loaded))
            self._prepare()
        except (device.cuda.Error, TensorRTError) as error:
            fault = self._fault(error)
            if not fault.fatal:
                self.close()
            raise fault from error

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Execute once and return every output by name.

        Raises:
            EngineError: the engine is closed, an input is missing or does not fit, or the
                device failed; `fatal` if nothing runs on it any more.
        """
        self._check(inputs)
        largest = max(self.buckets, default=0)
        if largest and rows > largest:
            return self._in_parts(inputs, outputs, rows, largest)
        try:
            return self._run(inputs, outputs, rows)
        except TensorRTError as error:
            if rows < 2 or classify(str(error)) is not Fault.MEMORY:
                raise
        # Once, with half of the rows.
        return self._in_parts(inputs, outputs, rows, -(-rows // 2))

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Pending:
        """Start a run of at most the largest bucket, on a lane without one.

        Raises:
            EngineError: the inputs do not fit, every lane has a run, or the device failed.
        """
        self._check(inputs)
        if not self._free:
            raise TensorRTError(f"{len(self._lanes)} runs were begun and not finished")
        index = self._free.popleft()
        try:
            return self._begin(index, inputs, rows)
        except BaseException:
            self._free.append(index)
            raise

    def finish(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Wait for a run, and copy its outputs out of pinned memory.

        Raises:
            EngineError: the device failed, or a buffer does not fit.
        """
        try:
            return self._finish(begun, outputs)
        finally:
            self._free.append(begun.lane)

    def _begin(self, index: int, inputs: Mapping[str, Array], rows: int) -> Pending:
        loaded, lane = self._open(), self._lanes[index]
        bucket = bucket_for(rows, loaded.buckets) or 0
        profile = loaded.buckets.index(bucket) if bucket else 0
        try:
            shapes = self._fixed.get(profile) or lane.shape(profile, padded(inputs, bucket))
            lane.put(inputs, rows, bucket)
            captured = self._captured.get((index, profile))
            if captured is not None and self._graphs is not None:
                self._graphs.launch(captured.executable, lane.stream.handle)
            else:
                lane.enqueue(profile, shapes)
            lane.done.record(lane.stream)
        except (self._device.cuda.Error, TensorRTError) as error:
            raise self._fault(error) from error
        return Pending(index, shapes, rows if bucket else 0)

    def _finish(self, pending: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        lane = self._lanes[pending.lane]
        try:
            lane.done.synchronize()
        except self._device.cuda.Error as error:
            raise self._fault(error) from error
        found = {}
        for tensor in self.signature.outputs:
            whole = lane.output(tensor, pending.shapes[tensor.name])
            result = whole[: pending.rows] if pending.rows else whole
            found[tensor.name] = deliver(tensor, result, outputs.get(tensor.name))
        return found

    def warm(self, rows: int) -> None:
        """Run once on zeros with that many rows and free dimensions of 1."""
        inputs = {tensor.name: zeros(tensor, rows) for tensor in self.signature.inputs}
        self.run(inputs, {}, rows)

    def memory(self) -> int:
        """Return the bytes that it holds on the device, weights included."""
        if self._loaded is None:
            return 0
        return self._loaded.weights + sum(lane.nbytes for lane in self._lanes)

    def close(self) -> None:
        """Give everything back: graphs, contexts, plan, memory. Safe to call twice."""
        if self._loaded is None:
            return
        for captured in self._captured.values():
            if self._graphs is not None:
                self._graphs.destroy(captured.executable, captured.graph)
        self._captured.clear()
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._loaded = None

    def _run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> dict[str, Array]:
        if self.buckets and not rows:
            return {
                tensor.name: deliver(tensor, empty(tensor), outputs.get(tensor.name))
                for tensor in self.signature.outputs
            }
        return self.finish(self.begin(inputs, rows), outputs)

    def _in_parts(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int, size: int
    ) -> dict[str, Array]:
        """Run more rows than there is a bucket or memory for, one part after the other."""
        parts = []
        for start in range(0, rows, size):
            end = min(rows, start + size)
            own = {name: array[start:end] for name, array in inputs.items()}
            parts.append(self._run(own, {}, end - start))
        return {
            tensor.name: deliver(
                tensor,
                np.concatenate([part[tensor.name] for part in parts]),
                outputs.get(tensor.name),
            )
            for tensor in self.signature.outputs
        }

    def _prepare(self) -> None:
        """Fix the shapes that cannot change, and capture the runs that have such shapes only."""
        loaded = self._open()
        free = any(
            None in tensor.shape[int(bool(loaded.buckets)) :] for tensor in self.signature.inputs
        )
        if free:
            return
        for profile, bucket in enumerate(loaded.buckets or (0,)):
            inputs = {tensor.name: zeros(tensor, bucket) for tensor in self.signature.inputs}
            for index, lane in enumerate(self._lanes):
                shapes = lane.shape(profile, padded(inputs, bucket))
                self._fixed[profile] = shapes
                lane.put(inputs, bucket, bucket)
                self._capture(index, lane, profile, shapes)

    def _capture(self, index: int, lane: Lane, profile: int, shapes: Shapes) -> None:
        if self._graphs is None:
            return
        found = capture(lane, profile, shapes, self._graphs, self._device.cuda)
        if found is not None:
            self._captured[index, profile] = found

    def _open(self) -> Loaded:
        if self._loaded is None:
            raise EngineError("the engine is closed")
        return self._loaded

    def _check(self, inputs: Mapping[str, Array]) -> None:
        self._open()
        check_inputs(self.signature, inputs)
        for tensor in self.signature.inputs:
            shape = inputs[tensor.name].shape
            if not fits(shape, tensor.shape):
                raise EngineError(
                    f"input {tensor.name!r} has shape {list(shape)}, "
                    f"and the model {list(tensor.shape)}"
                )

    def _fault(self, error: Exception) -> EngineError:
        loaded = self._loaded
        text = str(error) if loaded is None else loaded.recording.explain(str(error))
        return TensorRTError(text, fatal=classify(text) is Fault.STICKY)


def padded(inputs: Mapping[str, Array], bucket: int) -> Shapes:
    """Return the shapes of inputs in a bucket."""
    return {
        name: (bucket, *array.shape[1:]) if bucket else array.shape
        for name, array in inputs.items()
    }


def deliver(tensor: Tensor, result: Array, buffer: Array | None) -> Array:
    """Copy a result out of memory that is used again, into the caller's buffer if there is one.

    Raises:
        EngineError: the buffer is of another shape or dtype.
    """
    return result.copy() if buffer is None else write_into(buffer, tensor, result)


def empty(tensor: Tensor) -> Array:
    """Return an output without rows."""
    return np.zeros((0, *(size or 0 for size in tensor.shape[1:])), dtype=tensor.dtype)
