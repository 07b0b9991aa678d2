"""Served throughput as a ratio to bare ONNX Runtime, in one interleaved run.

    python -m benchmarks.served [--rounds 3] [--seconds 3] [--json FILE]

Each round measures, one after the other: bare ONNX Runtime in a loop (one row at a time, and
batches of the model's maximum), then the server under load from `inferd bench` on the same
cores. The figures are rows per second; the ratios are of medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree

import numpy as np
from inferd_engines.engine import Engine, EngineOptions
from inferd_engines.onnx import open_onnx
from inferd_server.settings.model import shipped_models

from benchmarks import resnet50
from benchmarks.process import Serving, serving


@dataclass(frozen=True, slots=True)
class Case:
    """A model, the largest batch that it is served with, and the load on it."""

    model: str
    max_batch: int
    shape: tuple[int, ...]
    loads: tuple[tuple[str, tuple[str, ...]], ...]


CASES = (
    Case(
        "digits",
        32,
        (8, 8),
        (
            ("unary, 1 caller", ("--concurrency", "1")),
            ("unary, 32 callers", ("--concurrency", "32")),
            ("streams, 32 in flight", ("--concurrency", "32", "--stream")),
            ("unary, 8 callers, 32 rows", ("--concurrency", "8", "--batch", "32")),
        ),
    ),
    Case(
        "resnet50",
        8,
        (3, 224, 224),
        (
            ("unary, 1 caller", ("--concurrency", "1")),
            ("unary, 8 callers", ("--concurrency", "8")),
        ),
    ),
)


def bare(engine: Engine, rows: int, shape: Sequence[int], seconds: float) -> float:
    """Return rows per second of an engine run in a loop."""
    tensor = engine.signature.inputs[0]
    batch = np.random.default_rng(0).random((rows, *shape)).astype(tensor.dtype)
    engine.run({tensor.name: batch}, {}, rows)
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        engine.run({tensor.name: batch}, {}, rows)
        runs += 1
    return runs * rows / elapsed


def served(server: Serving, case: Case, flags: Sequence[str], seconds: float) -> float:
    """Return rows per second that `inferd bench` got from the server.

    Raises:
        RuntimeError: a request failed.
    """
    command = [
        *(sys.executable, "-m", "inferd_client", "bench", case.model),
        *("--url", server.url, "--duration", str(seconds), "--warmup", "0.5", "--json", "-"),
        *flags,
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    report = json.loads(done.stdout)
    if report["errors"]:
        raise RuntimeError(f"{case.model}: {report['errors']}")
    return float(report["rows_per_s"])


@contextmanager
def repository() -> Iterator[Path]:
    """Lay out digits and ResNet-50 in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        copytree(shipped_models() / "digits", root / "digits")
        resnet50.write(root)
        (root / "resnet50/model.yaml").write_text("max_batch_size: 8\n")
        yield root


def measure(root: Path, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Run all cases, interleaved, and return rows per second by model and way."""
    found: dict[str, dict[str, list[float]]] = {case.model: {} for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            ways = found[case.model]
            engine = open_onnx(root / case.model / "1/model.onnx", EngineOptions())
            for rows in (1, case.max_batch):
                name = f"bare, batches of {rows}"
                ways.setdefault(name, []).append(bare(engine, rows, case.shape, seconds))
            engine.close()
            with serving(root) as server:
                for name, flags in case.loads:
                    ways.setdefault(name, []).append(served(server, case, flags, seconds))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians, and their ratios to bare runs of one row and to the best bare run."""
    lines = [
        "| model | way | rows/s | to bare, one row | to bare, best |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for model, ways in found.items():
        medians = {name: statistics.median(values) for name, values in ways.items()}
        alone = medians["bare, batches of 1"]
        best = max(value for name, value in medians.items() if name.startswith("bare"))
        lines += [
            f"| {model} | {name} | {value:,.0f} | {value / alone:.3g} | {value / best:.3g} |"
            for name, value in medians.items()
        ]
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    with repository() as root:
        found = measure(root, options.rounds, options.seconds)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
