"""What each part of monitoring costs, beside a server without it, interleaved.

    python -m benchmarks.monitoring [--rounds 9] [--seconds 1.5] [--only NAME ...]

A server for each setting runs all the time; every round loads one after the other, each first in
turn: the digits model, unary, 4 connections with 16 requests outstanding on each, and then at a
steady rate. The plain server is there twice: what it differs from itself is the noise. Told are the
medians of the ratios of each round to the plain server's. The receiver of traces and the sink of
alerts are threads of this process; the sink takes connections and never answers.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from inferd_client.bench.plan import Plan
from inferd_client.bench.processes import run
from inferd_client.requests import Request, build
from inferd_server.settings.model import shipped_models
from sklearn.datasets import load_digits

from benchmarks.overhead import cpu_seconds
from benchmarks.process import Serving, serving

CONNECTIONS, OUTSTANDING = 4, 16
RATE = 500.0
PLAIN = "nothing"


@dataclass(frozen=True, slots=True)
class Setting:
    """What a server has of monitoring."""

    flags: Sequence[str] = ()
    scraped: bool = False
    """Whether /metrics is read each second."""


@dataclass(frozen=True, slots=True)
class Figures:
    """One server's round: requests/s, microseconds of processor time a request, p99 in ms."""

    rate: float
    cost_us: float
    p99_ms: float


class Receiver(BaseHTTPRequestHandler):
    """Takes traces and forgets them."""

    def do_POST(self) -> None:
        """Take one message."""
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiver() -> Iterator[str]:
    """Give the address of a receiver of traces."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def settings(folder: Path, traces_to: str, sink: int) -> dict[str, Setting]:
    """Return all settings by their names.

    Args:
        folder: for files.
        traces_to: address of the receiver.
        sink: port that never answers.
    """
    urls = folder / "urls"
    urls.write_text(f"json://127.0.0.1:{sink}/\n")
    traces = (f"--traces-to={traces_to}", "--trace-share=0.01")
    recorder = ("--sample-share=0.01", "--record-part-s=1")
    # Its condition holds from the first request on.
    alerts = (
        f"--alert-urls-file={urls}", "--alert-interval-s=1", "--alert-patience-s=0",
        "--alert-p99-above-s=0",
    )  # fmt: skip
    return {
        PLAIN: Setting(),
        "nothing, once more": Setting(),
        "traces 1 %": Setting(traces),
        "recorder 1 %": Setting((*recorder, f"--record-to={folder}/one")),
        "scraped each second": Setting(scraped=True),
        "a sink that hangs": Setting(alerts),
        "all of it": Setting((*traces, *recorder, f"--record-to={folder}/all", *alerts), True),
    }


@contextmanager
def scraping(port: int) -> Iterator[None]:
    """Read /metrics each second meanwhile."""
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(1.0):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                answer.read()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def figures(server: Serving, message: bytes, seconds: float) -> Figures:
    """Load one server both ways.

    Raises:
        RuntimeError: a request failed.
    """
    many = Plan(server.url, message, CONNECTIONS * OUTSTANDING, seconds, client="fast")
    before = cpu_seconds(server.pid)
    full = run(replace(many, connections=CONNECTIONS), 1, lambda _: None)
    used = cpu_seconds(server.pid) - before
    steady = run(replace(many, rate=RATE), 1, lambda _: None)
    if set(full.codes) | set(steady.codes) != {"OK"}:
        raise RuntimeError(f"requests failed: {dict(full.codes + steady.codes)}")
    count = full.codes.total()
    p99 = float(np.quantile(steady.latencies, 0.99)) * 1e3
    return Figures(count / (full.ended - full.started), used / count * 1e6, p99)


def compare(
    chosen: dict[str, Setting], models: Path, rounds: int, seconds: float, flags: Sequence[str]
) -> dict[str, list[Figures]]:
    """Return the figures of every round, by setting."""
    image = np.random.default_rng(0).random((1, 8, 8)).astype(np.float32)
    message = build(Request("digits", {"image": image})).SerializeToString()
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    names = list(chosen)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(models, (*one.flags, *flags)))
            for name, one in chosen.items()
        }
        for number in range(rounds + 1):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                with ExitStack() as meanwhile:
                    if chosen[name].scraped:
                        meanwhile.enter_context(scraping(servers[name].metrics_port))
                    seen = figures(servers[name], message, seconds)
                if number:  # the first round warms up
                    found[name].append(seen)
    return found


def table(found: dict[str, list[Figures]]) -> str:
    """Return the medians, and those of the ratios to the plain server of each round."""
    head = "| monitoring | requests/s | us a request | p99, ms | rate | cost | p99 |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, rounds in found.items():
        columns = [[getattr(one, key) for one in rounds] for key in Figures.__slots__]
        plain = [[getattr(one, key) for one in found[PLAIN]] for key in Figures.__slots__]
        rate, cost, p99 = map(statistics.median, columns)
        ratios = (
            statistics.median(a / b for a, b in zip(own, beside, strict=True))
            for own, beside in zip(columns, plain, strict=True)
        )
        told = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        lines.append(f"| {name} | {rate:,.0f} | {cost:.1f} | {p99:.3f} | {told} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5, help="of each of two measurements")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="besides nothing")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, for all, after --")
    options = parser.parse_args()
    with TemporaryDirectory() as name, socket.socket() as sink, receiver() as traces_to:
        folder = Path(name)
        sink.bind(("127.0.0.1", 0))
        sink.listen()
        models = folder / "models"
        shutil.copytree(shipped_models(), models)
        # With it the samples are looked at for drift, too.
        np.savez(models / "digits/1/reference.npz", image=load_digits().images.astype(np.float32))
        known = settings(folder, traces_to, sink.getsockname()[1])
        wanted = {PLAIN, *options.only} if options.only else set(known)
        chosen = {one: setting for one, setting in known.items() if one in wanted}
        print(table(compare(chosen, models, options.rounds, options.seconds, options.flags)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
