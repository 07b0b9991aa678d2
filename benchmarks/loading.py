"""Answers of a quick model while a large one is loaded, in every arrangement.

    python -m benchmarks.loading [--loads 3]

One caller asks for digits without a pause, while ResNet-50 is unloaded and loaded again. Told are
the answers of each arrangement, the time of a load, and the longest answer before and meanwhile.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from inferd_client import Client
from inferd_server.settings.model import shipped_models

from benchmarks import resnet50
from benchmarks.process import Serving, serving
from benchmarks.threads import ARRANGEMENTS

LARGE, QUICK, REST_S = "resnet50", "digits", 1.0
IMAGE = np.zeros((1, 8, 8), np.float32)


def asking(url: str, ended: threading.Event, found: list[float]) -> None:
    """Ask until the end; append the milliseconds of each answer."""
    with Client(url) as client:
        while not ended.is_set():
            began = time.perf_counter()
            client.infer(QUICK, image=IMAGE)
            found.append((time.perf_counter() - began) * 1e3)


def measure(server: Serving, loads: int) -> tuple[list[float], list[float], list[float]]:
    """Return the milliseconds of answers at rest and meanwhile, and the seconds of each load."""
    found, ended, loaded = list[float](), threading.Event(), list[float]()
    thread = threading.Thread(target=asking, args=(server.url, ended, found))
    thread.start()
    time.sleep(REST_S)
    rest = len(found)
    with Client(server.url, timeout=120) as client:
        for _ in range(loads):
            client.unload(LARGE)
            began = time.perf_counter()
            client.load(LARGE)
            loaded.append(time.perf_counter() - began)
    ended.set()
    thread.join()
    return found[:rest], found[rest:], loaded


def row(name: str, found: tuple[Sequence[float], Sequence[float], Sequence[float]]) -> str:
    """Return a line of the table."""
    rest, meanwhile, loaded = found
    told = [f"{statistics.median(loaded):.2f}", f"{len(meanwhile):,}"]
    told += [f"{np.quantile(each, 0.5):.2f} | {max(each):.1f}" for each in (rest, meanwhile)]
    return f"| {name} | " + " | ".join(told) + " |"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--loads", type=int, default=3)
    options = parser.parse_args()
    head = ["arrangement", "load, s", "answers", "p50, ms", "longest", "p50 meanwhile", "longest"]
    print(f"| {' | '.join(head)} |\n| --- |{' ---: |' * (len(head) - 1)}")
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        shutil.copytree(shipped_models() / QUICK, models / QUICK)
        resnet50.write(models)
        for name, flags in ARRANGEMENTS.items():
            with serving(models, flags) as server:
                print(row(name, measure(server, options.loads)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
