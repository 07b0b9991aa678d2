"""Which buckets run as CUDA graphs, found out one by one at load."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferd_engines.engine import Array
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.graphs import Executable, Graph, Graphs
from inferd_engines.tensorrt.lane import Lane
from inferd_engines.tensorrt.loaded import Shapes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """One bucket of one lane, ready to be launched."""

    executable: Executable
    graph: Graph


def capture(lane: Lane, profile: int, shapes: Shapes, graphs: Graphs, cuda: Any) -> Captured | None:
    """Capture what `lane.enqueue` does; None, with the reason in the log, if that cannot be.

    Copies to the device stay outside, because not every run has its inputs at the same addresses.
    TensorRT updates what it deferred in the first run after a change of shapes, so one plain run
    comes first; an empty graph raises nothing, so a replay has to give what that run gave.

    Args:
        lane: whose inputs were put.
        profile: index of the bucket.
        shapes: of every tensor.
        graphs: of this host.
        cuda: the module pycuda.driver.
    """
    try:
        lane.enqueue(profile, shapes)
        lane.stream.synchronize()
        expected = outputs_of(lane, shapes)
        found = record(lane, profile, shapes, graphs)
    except (TensorRTError, cuda.Error) as error:
        log.warning("no CUDA graph", extra={"profile": profile, "why": str(error)})
        return None
    if replays(lane, shapes, graphs, found, expected):
        return found
    graphs.destroy(found.executable, found.graph)
    log.warning("no CUDA graph", extra={"profile": profile, "why": "a replay gave other outputs"})
    return None


def record(lane: Lane, profile: int, shapes: Shapes, graphs: Graphs) -> Captured:
    """Capture one run."""
    graphs.begin(lane.stream.handle)
    try:
        lane.enqueue(profile, shapes)
    finally:
        # The stream cannot be used while it is captured.
        graph = graphs.end(lane.stream.handle)
    return Captured(graphs.instantiate(graph), graph)


def replays(
    lane: Lane, shapes: Shapes, graphs: Graphs, found: Captured, expected: Mapping[str, Array]
) -> bool:
    """Launch a graph once; True if it wrote the expected outputs."""
    for tensor in lane.outputs:
        lane.output(tensor, shapes)[...] = 0
    graphs.launch(found.executable, lane.stream.handle)
    lane.stream.synchronize()
    got = outputs_of(lane, shapes)
    return all(np.array_equal(got[name], expected[name]) for name in expected)


def outputs_of(lane: Lane, shapes: Shapes) -> dict[str, Array]:
    """Return copies of all outputs."""
    return {tensor.name: lane.output(tensor, shapes).copy() for tensor in lane.outputs}
