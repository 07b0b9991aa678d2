"""What can be settled before the first run: shapes that never change, and graphs of such runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inferd_engines.arrays import zeros
from inferd_engines.tensorrt.graphs import Graphs
from inferd_engines.tensorrt.lane import Lane
from inferd_engines.tensorrt.loaded import Loaded, Shapes
from inferd_engines.tensorrt.replay import Captured, capture
from inferd_engines.tensorrt.rows import padded


class Fixed:
    """Shapes and graphs of all lanes of a plan. With the device's context current."""

    def __init__(self, graphs: Graphs | None, cuda: Any) -> None:
        """Begin with nothing.

        Args:
            graphs: of this host; None to run without.
            cuda: the module pycuda.driver.
        """
        self._graphs = graphs
        self._cuda = cuda
        self._shapes: dict[int, Shapes] = {}
        self._captured: dict[tuple[int, int], Captured] = {}

    def prepare(self, lanes: Sequence[Lane], loaded: Loaded) -> None:
        """Fix the shapes that cannot change, and capture the runs that have such shapes only.

        A run in which TensorRT asks for memory cannot be captured.

        Raises:
            TensorRTError: TensorRT refused a shape.
        """
        own = int(bool(loaded.buckets))
        if any(None in tensor.shape[own:] for tensor in loaded.signature.inputs):
            return
        for profile, bucket in enumerate(loaded.buckets or (0,)):
            inputs = {tensor.name: zeros(tensor, bucket) for tensor in loaded.signature.inputs}
            for index, lane in enumerate(lanes):
                self._shapes[profile] = lane.shape(profile, padded(inputs, bucket))
                if self._graphs is not None and not loaded.dependent:
                    lane.put(inputs, bucket)
                    self._capture(index, lane, profile, self._graphs)

    def shapes(self, profile: int) -> Shapes | None:
        """Return the shapes of a bucket's tensors; None if they change from run to run."""
        return self._shapes.get(profile)

    def launch(self, index: int, lane: Lane, profile: int) -> bool:
        """Run a bucket of a lane as a graph; False if it has none."""
        captured = self._captured.get((index, profile))
        if captured is None or self._graphs is None:
            return False
        self._graphs.launch(captured.executable, lane.stream.handle)
        return True

    def close(self) -> None:
        """Give the graphs back."""
        for captured in self._captured.values():
            if self._graphs is not None:
                self._graphs.destroy(captured.executable, captured.graph)
        self._captured.clear()

    def _capture(self, index: int, lane: Lane, profile: int, graphs: Graphs) -> None:
        found = capture(lane, profile, self._shapes[profile], graphs, self._cuda)
        if found is not None:
            self._captured[index, profile] = found
