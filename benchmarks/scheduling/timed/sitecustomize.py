"""Engines that take their time without the processor, as on a GPU: read by every Python process.

A stand-in: on two cores a model that computes takes them from its callers, and its runs vary with
what those do.
"""

import random
import time
from collections.abc import Mapping

from inferd.tensors import Array
from inferd_engines import onnx

ROW_S, SPREAD = 0.0035, 0.15
"""Seconds of a row, and the standard deviation of the logarithm of what runs take."""
draw = random.Random(1)
compute = onnx.OnnxEngine.run


def run(
    self: onnx.OnnxEngine, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
) -> Mapping[str, Array]:
    """Sleep for each row, and run."""
    time.sleep(rows * ROW_S * draw.lognormvariate(0, SPREAD))
    return compute(self, inputs, outputs, rows)


onnx.OnnxEngine.run = run  # type: ignore[method-assign]
