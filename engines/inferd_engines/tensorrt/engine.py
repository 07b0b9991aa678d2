"""A plan behind the engine interface."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from inferd_engines.arrays import zeros
from inferd_engines.engine import Array, EngineError, PlanState, Signature
from inferd_engines.tensorrt.device import Device
from inferd_engines.tensorrt.errors import OutOfMemory, TensorRTError, lacks_memory
from inferd_engines.tensorrt.graphs import Fixed
from inferd_engines.tensorrt.lane import KEPT, Form, Lane
from inferd_engines.tensorrt.libcuda import DriverError
from inferd_engines.tensorrt.loaded import Loaded
from inferd_engines.tensorrt.pinned import Registered
from inferd_engines.tensorrt.profiles import bucket_for
from inferd_engines.tensorrt.rows import check, cut, deliver, joined, nothing

LANES = 2
Shape = tuple[int, ...]


class Way(NamedTuple):
    """How inputs of some shapes run."""

    profile: int
    bucket: int
    """Rows with padding; 0 for a plan without a batch dimension."""
    shapes: tuple[Shape, ...]
    """Of the inputs, padding included."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A run that was begun."""

    lane: Lane
    index: int
    """Of the lane."""
    form: Form
    rows: int
    """0 for a plan without a batch dimension."""
    bucket: int
    """Rows with padding."""
    said: int
    """The place in the recording at which it began."""


class TensorRTEngine:
    """One plan on one GPU. Opened, used and closed by one thread, where its context is current.

    `begin` and `finish` are the two halves of `run`; between them, the next run may begin, whose
    copies then overlap with this one's work.
    """

    def __init__(
        self,
        device: Device,
        loaded: Loaded,
        name: str,
        *,
        graphs: bool,
        block: bool = False,
        lanes: int = LANES,
    ) -> None:
        """Take all memory, and capture what can be.

        Args:
            device: whose context is current.
            loaded: the plan.
            name: such as "tensorrt/NVIDIA H100".
            graphs: False to run without.
            block: True to sleep while the GPU runs, False to spin on a core.
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
        self._fixed = Fixed(device, graphs=graphs)
        self._registered = Registered(device.host_memory)
        self._inputs = [(tensor.name, tensor.dtype) for tensor in loaded.signature.inputs]
        self._ways: dict[tuple[int, tuple[Shape, ...]], Way] = {}
        # Of the lanes without a run, the one that has been free longest comes first.
        self._free = deque(range(lanes))
        self._lanes: list[Lane] = []
        try:
            for _ in range(lanes):
                self._lanes.append(Lane(device, loaded, self._registered, block))
            self._fixed.prepare(self._lanes, loaded)
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
        largest = self.buckets[-1] if self.buckets else 0
        if largest and rows > largest:
            self._check(inputs, rows)
            return self._in_parts(inputs, outputs, rows, largest)
        try:
            return self._run(inputs, outputs, rows)
        except OutOfMemory:
            if rows < 2:
                raise
        # Once, with half of the rows.
        return self._in_parts(inputs, outputs, rows, -(-rows // 2))

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Pending:
        """Start a run of at most the largest bucket, on a lane without one.

        Inputs in registered memory must not change before `finish`.

        Raises:
            EngineError: the inputs do not fit, every lane has a run, or the device failed.
        """
        way = self._way(inputs, rows)
        if not self._free:
            raise TensorRTError(f"{len(self._lanes)} runs were begun and not finished")
        index = self._free.popleft()
        try:
            return self._enqueue(index, way, inputs, rows)
        except BaseException:
            self._free.append(index)
            raise

    def finish(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Wait for a run, and copy its outputs out of pinned memory.

        Raises:
            EngineError: the device failed, a buffer does not fit, or an output lacks rows.
        """
        try:
            try:
                begun.lane.done.synchronize()
            except self._device.cuda.Error as error:
                raise self._fault(error, begun.said) from error
            return self._outputs(begun, outputs)
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

    def runtime_cache(self) -> bytes:
        """Return what TensorRT compiled for this GPU; empty where it compiles when it builds."""
        return b"" if self._loaded is None else self._loaded.runtime_cache()

    def _run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> dict[str, Array]:
        if self.buckets and not rows:
            self._check(inputs, rows)
            return nothing(self.signature, outputs)
        return self.finish(self.begin(inputs, rows), outputs)

    def _way(self, inputs: Mapping[str, Array], rows: int) -> Way:
        """Return how inputs run, checked: what was right once is right again.

        Raises:
            EngineError: the engine is closed, or the inputs do not fit.
        """
        if self._loaded is None:
            raise EngineError("the engine is closed")
        shapes = []
        for name, dtype in self._inputs:
            array = inputs.get(name)
            if array is None or array.dtype != dtype:
                break
            shapes.append(array.shape)
        key = (rows, tuple(shapes))
        found = self._ways.get(key) if len(shapes) == len(self._inputs) else None
        if found is None:
            self._check(inputs, rows)
            found = self._make_way(key[1], rows)
            if len(self._ways) >= KEPT:
                self._ways.clear()
            self._ways[key] = found
        return found

    def _make_way(self, shapes: tuple[Shape, ...], rows: int) -> Way:
        if not self.buckets:
            return Way(0, 0, shapes)
        bucket = bucket_for(rows, self.buckets)
        if bucket is None:
            raise EngineError(f"{rows} rows are more than the largest bucket, {self.buckets[-1]}")
        padded = tuple((bucket, *shape[1:]) for shape in shapes)
        return Way(self.buckets.index(bucket), bucket, padded)

    def _enqueue(self, index: int, way: Way, inputs: Mapping[str, Array], rows: int) -> Pending:
        lane, fixed, loaded = self._lanes[index], self._fixed, self._loaded
        assert loaded is not None, "it was checked"
        said = loaded.listen()
        try:
            form = fixed.form(index, way.profile) or lane.form(way.profile, way.shapes)
            copies = lane.put(form, inputs, way.bucket)
            within = copies is form.there
            executable = fixed.executable(index, way.profile, copies=within)
            if executable is None or not within:
                lane.copy_in(copies)
            if executable is None:
                lane.enqueue(form)
            else:
                self._device.libcuda.launch(executable, lane.handle)
            lane.done.record(lane.stream)
        except (self._device.cuda.Error, TensorRTError) as error:
            # The caller's memory is free again, so nothing may be reading it.
            with suppress(self._device.cuda.Error):
                lane.stream.synchronize()
            raise self._fault(error, said) from error
        return Pending(lane, index, form, rows if way.bucket else 0, way.bucket, said)

    def _outputs(self, begun: Pending, outputs: Mapping[str, Array]) -> dict[str, Array]:
        found = {}
        full = begun.rows == begun.bucket
        for tensor, view in begun.form.outputs:
            result = begun.lane.dependent(tensor) if view is None else view.array
            if not full:
                result = cut(tensor, result, begun.rows, begun.bucket)
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

    def _fault(self, error: Exception, said: int | None = None) -> EngineError:
        """Return an error with what TensorRT said of it.

        It is fatal if the device does not work any more, whatever its text says: texts change
        from one CUDA to the next, and TensorRT repeats old ones.
        """
        told = [] if self._loaded is None else self._loaded.recording.told(said)
        explained = isinstance(error, TensorRTError) and not isinstance(error, DriverError)
        text = str(error) if explained or not told else f"{error}: {' | '.join(told)}"
        if getattr(error, "fatal", False) or not self._device.works():
            return TensorRTError(text, fatal=True)
        decides = " ".join(told if explained else [*told, str(error)])
        return (OutOfMemory if lacks_memory(decides) else TensorRTError)(text)
