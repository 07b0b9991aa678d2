"""What each model costs and how often it is right, as a table."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.standard import open_onnx_cpu

from examples.images.data import Array

LATENCY_ROUNDS, THROUGHPUT_ROUNDS = 300, 30
WARM_UP = 5
BATCH = 32
Z = 1.96
"""Standard deviations of a 95 % interval."""
INPUT, OUTPUT = "image", "logits"


@dataclass(frozen=True, slots=True)
class Measured:
    """One model."""

    name: str
    parameters: int
    size: int
    """Of the file, in bytes."""
    right: Array
    """bool [n]: whether each held-out image was classified as labelled."""
    latency_ms: float
    """Median of one image."""
    throughput: float
    """Images a second in batches of BATCH."""


def measure_all(
    files: Mapping[str, Path],
    parameters: Mapping[str, int],
    right: Mapping[str, Array],
    images: Array,
) -> list[Measured]:
    """Time models by name, with one thread each, in turn, and put what is known beside that."""
    with opened(files) as engines:
        latency = medians(engines, images[:1], LATENCY_ROUNDS)
        batch = medians(engines, images[:BATCH], THROUGHPUT_ROUNDS)
    return [
        Measured(
            name,
            parameters[name],
            path.stat().st_size,
            right[name],
            latency[name] * 1e3,
            BATCH / batch[name],
        )
        for name, path in files.items()
    ]


def right_answers(files: Mapping[str, Path], images: Array, labels: Array) -> dict[str, Array]:
    """Return by name which images bool [n] each model classifies as they are labelled."""
    with opened(files) as engines:
        return {name: predictions(engine, images) == labels for name, engine in engines.items()}


@contextmanager
def opened(files: Mapping[str, Path]) -> Iterator[dict[str, Engine]]:
    """Open models by name, with one thread each."""
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(closing(open_onnx_cpu(path, EngineOptions(threads=1))))
            for name, path in files.items()
        }


def predictions(engine: Engine, images: Array) -> Array:
    """Return the classes int64 [n] of images [n, 3, 32, 32]."""
    return engine.run({INPUT: images}, {}, len(images))[OUTPUT].argmax(axis=1)


def medians(engines: Mapping[str, Engine], images: Array, rounds: int) -> dict[str, float]:
    """Return the median seconds of a run of each, taken in turn."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for each in range(rounds + WARM_UP):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.run({INPUT: images}, {}, len(images))
            if each >= WARM_UP:
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(taken) for name, taken in times.items()}


def interval(right: int, of: int) -> tuple[float, float]:
    """Return the 95 % interval of a share. Source: E. B. Wilson, 1927."""
    share, square = right / of, Z**2 / of
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / of + square / of / 4)
    return middle - half, middle + half


def mcnemar(one: Array, other: Array) -> float:
    """Return the exact two-sided probability of so unequal errors of two models on equal images.

    Source: Q. McNemar, 1947, by the binomial distribution.
    """
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(~one & other))
    differing, fewer = only_one + only_other, min(only_one, only_other)
    tail = sum(math.comb(differing, count) for count in range(fewer + 1))
    return min(1.0, 2 * tail / 2**differing)


def table(measured: list[Measured]) -> str:
    """Return what was measured, the first model being the teacher, for people."""
    teacher = measured[0]
    header = ("model", "parameters", "KB", "accuracy", "95 % interval", "p", "ms", "images/s")
    rows: list[tuple[Any, ...]] = [header]
    for one in measured:
        low, high = interval(int(one.right.sum()), len(one.right))
        rows.append(
            (
                one.name,
                f"{one.parameters:,}",
                f"{one.size / 1024:.0f}",
                f"{one.right.mean():.4f}",
                f"{low:.4f} to {high:.4f}",
                "" if one is teacher else f"{mcnemar(teacher.right, one.right):.3f}",
                f"{one.latency_ms:.3f}",
                f"{one.throughput:.0f}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)
