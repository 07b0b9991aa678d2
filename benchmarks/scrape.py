"""The cost of /metrics: the time of an answer with many models, and what callers see of it.

    python -m benchmarks.scrape [--models 100] [--seconds 5] [--rounds 6]

Copies of the digits model are served inline, all of them are asked once, and one is asked at a
steady rate, in turns: left alone, while a path that is not there is asked for each second (whoever
asks needs a core for a moment, too), and while /metrics is, as Prometheus does it.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models

from benchmarks.callers import callers, run_plan
from benchmarks.process import digits_request, serving

RATE = 500.0
MOST_MS = 50.0
ASKED = {
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3",
    "Accept-Encoding": "gzip",
}
"""What Prometheus sends."""
ASIDE = {
    "": "left alone",
    "nothing": "asked each second for what is not there",
    "metrics": "scraped each second",
}
"""What is asked for aside, and what that is called."""


def copies(folder: Path, count: int) -> None:
    """Lay out so many models."""
    for number in range(count):
        shutil.copytree(shipped_models() / "digits", folder / f"digits-{number}")


def scrape(port: int, after: float = 0.0) -> float:
    """Return the milliseconds of an answer, asked for after so many seconds: it rests meanwhile."""
    time.sleep(after)
    begun = time.perf_counter()
    get(port, "metrics")
    return (time.perf_counter() - begun) * 1000


def get(port: int, path: str) -> None:
    """Ask for a path, and take the answer."""
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/{path}", headers=ASKED)
    with suppress(urllib.error.HTTPError), urllib.request.urlopen(asked, timeout=10) as answer:
        answer.read()


def ask_each_second(port: int, path: str, ended: threading.Event) -> None:
    """Ask until the end; for nothing if there is no path."""
    while not ended.wait(1.0):
        if path:
            get(port, path)


def p99(plan: Plan, port: int, path: str, asking: Executor) -> float:
    """Return the milliseconds within which 99 of 100 requests of another process are answered."""
    ended = threading.Event()
    thread = threading.Thread(target=ask_each_second, args=(port, path, ended))
    thread.start()
    samples = asking.submit(run_plan, plan).result()
    ended.set()
    thread.join()
    return float(np.quantile(samples.latencies, 0.99)) * 1000


def main() -> int:
    """Measure and print; 1 if an answer takes too long."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copies(Path(folder), options.models)
        # Trials of the models that nobody asks would be seen, too.
        flags = ("--processes=inline", "--canary-interval-s=0")
        with serving(Path(folder), flags) as server, callers(1) as asking:
            with grpc.insecure_channel(server.url) as channel:
                stub = GRPCInferenceServiceStub(channel)
                for number in range(options.models):
                    stub.ModelInfer(digits_request(f"digits-{number}"))
            port = server.metrics_port
            first, answers = scrape(port), [scrape(port, after=0.5) for _ in range(6)]
            message = digits_request("digits-0").SerializeToString()
            plan = Plan(server.url, message, 16, options.seconds, client="fast")
            plan = replace(plan, rate=RATE)
            seen: dict[str, list[float]] = {path: [] for path in ASIDE}
            for _ in range(options.rounds):
                for path in ASIDE:
                    seen[path].append(p99(plan, port, path, asking))
    usual = statistics.median(answers)
    print(f"{options.models} models: first answer {first:.1f} ms, then {usual:.1f} ms")
    for path, found in seen.items():
        rounds = ", ".join(f"{one:.3f}" for one in found)
        print(f"{ASIDE[path]}: p99 {statistics.median(found):.3f} ms ({rounds})")
    return int(usual > MOST_MS)


if __name__ == "__main__":
    sys.exit(main())
