"""The cost in Python of beginning and finishing a batch: python -m tests.device.cost.

The stand-in does all work within its calls and the double computes nothing, so that what is left is
the engine, pycuda and ctypes. Not a test, because a busy machine decides how long anything takes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
from inferd_engines.engine import Array, Signature, Tensor
from inferd_engines.tensorrt.profiles import Range

from tests.device.standin import IDLE
from tests.engines.tensorrt.bench import Bench

ROUNDS, RUNS = 15, 2000


def signature(inputs: int, outputs: int, shape: tuple[int | None, ...]) -> Signature:
    """Return so many inputs and outputs of one shape."""

    def tensors(letter: str, count: int) -> tuple[Tensor, ...]:
        return tuple(Tensor(f"{letter}{i}", np.dtype(np.float32), shape) for i in range(count))

    return Signature(tensors("I", inputs), tensors("O", outputs))


def cost(
    inputs: int, outputs: int, *, rows: int = 4, graphs: bool = True, free: bool = False
) -> float:
    """Return microseconds of a batch: the median of rounds."""
    shape: tuple[int | None, ...] = (None, None) if free else (None, 4)
    made = signature(inputs, outputs, shape)

    def compute(given: Mapping[str, Array]) -> Mapping[str, Array]:
        return {tensor.name: given["I0"] for tensor in made.outputs}

    bench = Bench()
    ranges = {tensor.name: Range((1,), (4,), (64,)) for tensor in made.inputs} if free else {}
    engine = bench.open(made, compute, buckets=(1, 4, 8), ranges=ranges, graphs=graphs)
    bench.standin.pace(IDLE)
    for context in (one for each in bench.trt.engines for one in each.contexts):
        context.execute_async_v3 = nothing  # type: ignore[method-assign]
    batch = {tensor.name: np.ones((rows, 4), np.float32) for tensor in made.inputs}
    buffers = {tensor.name: np.empty((rows, 4), np.float32) for tensor in made.outputs}
    rounds = [timed(engine, batch, buffers, rows) for _ in range(ROUNDS)]
    bench.close()
    return statistics.median(rounds) * 1e6


def nothing(stream: int) -> bool:
    """Run, at no cost."""
    del stream
    return True


def timed(engine: object, batch: object, buffers: object, rows: int) -> float:
    """Return seconds of a run."""
    begin, finish = engine.begin, engine.finish
    start = time.perf_counter()
    for _ in range(RUNS):
        finish(begin(batch, rows), buffers)
    return (time.perf_counter() - start) / RUNS


def tell(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def main(cases: Sequence[tuple[int, int]] = ((1, 1), (3, 2), (1, 10))) -> None:
    """Print a table."""
    tell("| inputs | outputs | graph, us | plain, us | padded, us | free sizes, us |")
    tell("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for inputs, outputs in cases:
        figures = (
            cost(inputs, outputs),
            cost(inputs, outputs, graphs=False),
            cost(inputs, outputs, rows=3),
            cost(inputs, outputs, graphs=False, free=True),
        )
        tell(f"| {inputs} | {outputs} | " + " | ".join(f"{one:.1f}" for one in figures) + " |")


if __name__ == "__main__":
    main()
