"""A plan behind the engine interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from inferd_engines.arrays import zeros
from inferd_engines.engine import Array, EngineError, PlanState, Signature
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.faults import Fault, classify
from inferd_engines.tensorrt.fixed import Fixed
from inferd_engines.tensorrt.graphs import Graphs
from inferd_engines.tensorrt.lane import Lane
from inferd_engines.tensorrt.loaded import Loaded, Shapes
from inferd_engines.tensorrt.pinned import Registered
from inferd_engines.tensorrt.profiles import bucket_for
from inferd_engines.tensorrt.rows import check, cut, deliver, joined, nothing, padded

LANES = 2


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that was begun."""

    lane: Lane
    index: int
    """Of the lane."""
    shapes: Shapes
    rows: int
    bucket: int
    """Rows with padding; as `rows`, 0, for a plan without a batch dimension."""


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
        self.version = str(loaded.trt.__version__)
        self.reason = ""
        self.plan_state = PlanState.READY
        self.steady = True
        self.buckets: Sequence[int] = loaded.buckets
        self._device = device
        self._loaded: Loaded | None = loaded
        self._fixed = Fixed(graphs, device.cuda)
        self._registered = Registered(device.host_memory, device.cuda)
        # Of the lanes without a run, the one that has been free longest comes first.
        self._free = deque(range(lanes))
        self._lanes: list[Lane] = []
        try:
            for _ in range(lanes):
                self._lanes.append(Lane(device, loaded, self._registered))
            self._fixed.prepare(self._lanes, loaded)
        except (device.cuda.Error, TensorRTError) as error:
            if not self._fault(error).fatal:
                self.close()
            raise self._fault(error) from error

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Execute once and return every output by name.

        Raises:
            EngineError: the engine is closed, an input is missing or does not fit, or the
                device failed; `fatal` if nothing runs on it any more.
        """
        self._check(inputs, rows)
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

        Inputs in registered memory must not change before `finish`.

        Raises:
            EngineError: the inputs do not fit, every lane has a run, or the device failed.
        """
        self._check(inputs, rows)
        return self._begin(inputs, rows)

    def finish(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Wait for a run, and copy its outputs out of pinned memory.

        Raises:
            EngineError: the device failed, a buffer does not fit, or an output lacks rows.
        """
        try:
            return self._finish(begun, outputs)
        finally:
            self._free.append(begun.index)

    def register(self, memory: Array) -> bool:
        """Read inputs in this memory where they lie, as `Registering` has it."""
        return self._loaded is not None and self._registered.add(memory)

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
        self._fixed.close()
        for lane in self._lanes:
            lane.close()
        self._lanes.clear()
        self._registered.close()
        self._loaded = None

    def _run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> dict[str, Array]:
        if self.buckets and not rows:
            return nothing(self.signature, outputs)
        return self.finish(self._begin(inputs, rows), outputs)

    def _begin(self, inputs: Mapping[str, Array], rows: int) -> Pending:
        if not self._free:
            raise TensorRTError(f"{len(self._lanes)} runs were begun and not finished")
        index = self._free.popleft()
        try:
            return self._enqueue(index, inputs, rows)
        except BaseException:
            self._free.append(index)
            raise

    def _enqueue(self, index: int, inputs: Mapping[str, Array], rows: int) -> Pending:
        bucket = bucket_for(rows, self.buckets) or 0
        profile = self.buckets.index(bucket) if bucket else 0
        lane = self._lanes[index]
        try:
            shapes = self._fixed.shapes(profile) or lane.shape(profile, padded(inputs, bucket))
            lane.put(inputs, bucket)
            if not self._fixed.launch(index, lane, profile):
                lane.enqueue(profile, shapes)
            lane.done.record(lane.stream)
        except (self._device.cuda.Error, TensorRTError) as error:
            # The caller's memory is free again, so nothing may be reading it.
            with suppress(self._device.cuda.Error):
                lane.stream.synchronize()
            raise self._fault(error) from error
        return Pending(lane, index, shapes, rows if bucket else 0, bucket)

    def _finish(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        lane = begun.lane
        try:
            lane.done.synchronize()
        except self._device.cuda.Error as error:
            raise self._fault(error) from error
        found = {}
        for tensor in self.signature.outputs:
            result = cut(tensor, lane.output(tensor, begun.shapes), begun.rows, begun.bucket)
            found[tensor.name] = deliver(tensor, result, outputs.get(tensor.name))
        return found

    def _in_parts(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int, size: int
    ) -> dict[str, Array]:
        """Run more rows than there is a bucket or memory for, one part after the other."""
        parts = []
        for start in range(0, rows, size):
            end = min(rows, start + size)
            own = {name: array[start:end] for name, array in inputs.items()}
            parts.append((end - start, self._run(own, {}, end - start)))
        return joined(self.signature, parts, outputs)

    def _check(self, inputs: Mapping[str, Array], rows: int) -> None:
        if self._loaded is None:
            raise EngineError("the engine is closed")
        check(self.signature, inputs, rows if self.buckets else None)

    def _fault(self, error: Exception) -> EngineError:
        loaded = self._loaded
        text = str(error) if loaded is None else loaded.recording.explain(str(error))
        return TensorRTError(text, fatal=classify(text) is Fault.STICKY)
