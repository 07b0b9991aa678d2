"""Compare ONNX Runtime's session options: python -m benchmarks.session_options.

Variants run interleaved and in another order each round, so that a noisy neighbour hurts all
of them, and medians are compared with ONNX Runtime's defaults. `CPU` is processor time over
elapsed time: what a variant takes away from the other models and threads of a server. With
--neighbour a Python thread is busy meanwhile, as the server's own is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import GraphOptimizationLevel, InferenceSession, SessionOptions

from benchmarks.resnet50 import build_resnet50

DIGITS = Path(__file__).parents[1] / "server/inferd_server/shipped_models/digits/1/model.onnx"


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of opening a session: attributes of SessionOptions, and config entries."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)

    def open(self, path: Path) -> InferenceSession:
        """Open the model on the CPU provider."""
        options = SessionOptions()
        for name, value in self.attributes.items():
            setattr(options, name, value)
        for name, text in self.entries.items():
            options.add_session_config_entry(name, text)
        return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


@dataclass(frozen=True, slots=True)
class Cost:
    """One round: seconds per run, and processor seconds per elapsed second."""

    seconds: float
    cores: float


def variants(cores: int) -> list[Variant]:
    """Return what is compared; the first is ONNX Runtime's default."""
    quiet = {"session.intra_op.allow_spinning": "0"}
    threads = {"intra_op_num_threads": cores}
    return [
        Variant("defaults"),
        Variant("no spinning", {}, quiet),
        Variant("spin 50 us", {}, {"session.intra_op.spin_duration_us": "50"}),
        Variant("1 thread", {"intra_op_num_threads": 1}),
        Variant(f"{cores} threads, no spinning", threads, quiet),
        Variant("no memory pattern", {"enable_mem_pattern": False}),
        Variant("no arena", {"enable_cpu_mem_arena": False}),
        Variant(
            "extended optimisation",
            {"graph_optimization_level": GraphOptimizationLevel.ORT_ENABLE_EXTENDED},
        ),
    ]


def measure(run: Callable[[], object], budget: float) -> Cost:
    """Repeat a run for about `budget` seconds, at least once, after one that does not count."""
    run()
    count, started, cpu = 0, time.perf_counter(), time.process_time()
    while count == 0 or time.perf_counter() - started < budget:
        run()
        count += 1
    elapsed = time.perf_counter() - started
    return Cost(elapsed / count, (time.process_time() - cpu) / elapsed)


def compare(path: Path, batch: int, rounds: int, budget: float) -> dict[str, list[Cost]]:
    """Measure every variant in every round, on random input of that batch size."""
    cores = len(os.sched_getaffinity(0))
    sessions = {variant.name: variant.open(path) for variant in variants(cores)}
    (argument,) = next(iter(sessions.values())).get_inputs()
    random = np.random.default_rng(0)
    feed = {argument.name: random.random((batch, *argument.shape[1:]), dtype=np.float32)}
    costs: dict[str, list[Cost]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name in random.permutation(list(sessions)):
            costs[name].append(measure(partial(sessions[name].run, None, feed), budget))
    return costs


def rows(costs: Mapping[str, Sequence[Cost]]) -> Iterator[str]:
    """Return Markdown rows: variant, median time, ratio to the defaults, cores used."""
    medians = {name: statistics.median(c.seconds for c in found) for name, found in costs.items()}
    base = next(iter(medians.values()))
    for name, median in medians.items():
        cores = statistics.median(cost.cores for cost in costs[name])
        yield f"| {name} | {median * 1e6:.0f} | {median / base:.2f} | {cores:.2f} |"


@contextmanager
def busy_thread(wanted: bool) -> Iterator[None]:
    """Keep a Python thread busy about half of the time, where that is wanted."""
    done = threading.Event()

    def work() -> None:
        while not done.wait(0.0005):
            until = time.perf_counter() + 0.0005
            while time.perf_counter() < until:
                pass

    if not wanted:
        yield
        return
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one table per model and batch size, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--budget", type=float, default=0.2, help="seconds per variant and round")
    parser.add_argument("--model", choices=("digits", "resnet50"), help="one model only")
    parser.add_argument("--neighbour", action="store_true", help="keep a Python thread busy")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder, busy_thread(options.neighbour):
        resnet50 = Path(folder) / "resnet50.onnx"
        onnx.save(build_resnet50(), resnet50)
        cases = [
            ("digits", DIGITS, 1),
            ("digits", DIGITS, 32),
            ("resnet50", resnet50, 1),
            ("resnet50", resnet50, 8),
        ]
        for name, path, batch in cases:
            if options.model not in (None, name):
                continue
            print(f"\n{name}, batch {batch}\n")
            print("| variant | us | ratio | CPU |\n| --- | --- | --- | --- |")
            for row in rows(compare(path, batch, options.rounds, options.budget)):
                print(row, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
