"""What each part of monitoring costs, beside a server without it, interleaved.

    python -m benchmarks.monitoring [--starts 3] [--rounds 5] [--seconds 1] [--only NAME ...]

A server for each setting runs all the time, and several times anew, because each start is a bit
faster or slower than the next. Every round loads one after the other, each first in turn: digits,
unary, 4 connections with 16 requests outstanding on each, and then at a steady rate. The
plain server is there twice: what it differs from itself is the noise. Told are the medians of the
ratios of each round to the plain server's. A host that others use is too restless for two percent;
so first the processor time of the parts of tracing is told, the least of several goes each: what
a request takes more that is not traced, and what one takes that is, its message among it;
`--rounds 0` is that alone. The receiver of traces and the sink of alerts are threads of this
process, and callers are in another one; the sink takes connections and never answers.
"""

from __future__ import annotations

import argparse
import random
import shutil
import socket
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from inferd_client.bench.plan import Plan
from inferd_server.inference.tracing import Tracing
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.tracing.otlp import SpanEncoder
from inferd_server.monitoring.tracing.spans import Batches, RanRequest, RequestTrace, spans_of
from inferd_server.settings.model import shipped_models
from sklearn.datasets import load_digits

from benchmarks.callers import callers, run_plan
from benchmarks.overhead import cpu_seconds
from benchmarks.process import Serving, digits_request, serving
from benchmarks.recording import microseconds

CONNECTIONS, OUTSTANDING = 4, 16
CALLS, TRACED = 100_000, 1000
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


class Passing:
    """A call of a caller who sends nothing but what all do."""

    request = b"\n\x06digits"
    stream = None
    cancelled = False
    metadata = (("user-agent", "grpc-c"),)

    def reply(self, parts: Sequence[bytes], trailing: object = ()) -> None:
        """Take the answer."""


def tracing_costs() -> str:
    """Measure what tracing takes of the processor, on the request's thread and beside it."""
    kept: list[RequestTrace] = []
    ran = RanRequest("1", 1, 11.0, Phases(0.1, Execution(1, 0.0, 0.0, 0.02)))
    encode, call = SpanEncoder((("service.name", "inferd"),), "1"), Passing()

    def answered(one: Any) -> None:
        if (trace := tracing.of(one.metadata)) is not None:
            trace.ran = ran
        one.reply((b"",))

    def traced() -> None:
        for _ in range(TRACED):
            always(call)
        batches = Batches(random.getrandbits)
        spans = [span for one in kept for span in spans_of(one, batches, random.getrandbits)]
        encode(spans, 0)
        kept.clear()

    def times(handler: Callable[[Any], None]) -> Callable[[], None]:
        return lambda: [handler(call) for _ in range(CALLS)] and None

    tracing = Tracing(0.0, kept.append, random.getrandbits, time.monotonic)
    never = tracing.around(answered)
    plain = microseconds(times(answered)) / CALLS
    each = microseconds(times(never)) / CALLS - plain
    tracing = Tracing(1.0, kept.append, random.getrandbits, time.monotonic)
    always = tracing.around(answered)
    one = microseconds(traced) / TRACED - plain
    share = each + 0.01 * one
    return (
        f"processor time of tracing: {each:.2f} us for each request, {one:.0f} us for each that is "
        f"traced; with a share of 0.01 {share:.2f} us a request\n"
    )


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
    recorder = ("--sample-share=0.01",)
    # Its condition holds from the first request on.
    alerts = (
        f"--alert-urls-file={urls}", "--alert-patience-s=0",
        "--alert-p99-above-s=0",
    )  # fmt: skip
    return {
        PLAIN: Setting(),
        "nothing, once more": Setting(),
        "traces 1 %": Setting(traces),
        "recorder 1 %": Setting((*recorder, f"--record-to={folder}/one", "--drift-cpu-share=0")),
        "recorder 1 %, a file each second": Setting(
            (*recorder, f"--record-to={folder}/two", "--record-part-s=1", "--drift-cpu-share=0")
        ),
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


def figures(server: Serving, message: bytes, seconds: float, asking: Executor) -> Figures:
    """Load one server both ways, from another process."""
    many = Plan(server.url, message, CONNECTIONS * OUTSTANDING, seconds, client="fast")
    before = cpu_seconds(server.pid)
    full = asking.submit(run_plan, replace(many, connections=CONNECTIONS)).result()
    used = cpu_seconds(server.pid) - before
    steady = asking.submit(run_plan, replace(many, rate=RATE)).result()
    count = full.codes.total()
    p99 = float(np.quantile(steady.latencies, 0.99)) * 1e3
    return Figures(count / (full.ended - full.started), used / count * 1e6, p99)


def compare(
    chosen: Mapping[str, Setting],
    models: Path,
    rounds: int,
    seconds: float,
    flags: Sequence[str],
) -> dict[str, list[Figures]]:
    """Start a server for each setting; return the figures of every round, by setting."""
    message = digits_request().SerializeToString()
    found: dict[str, list[Figures]] = {name: [] for name in chosen}
    names = list(chosen)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serving(models, (*one.flags, *flags)))
            for name, one in chosen.items()
        }
        asking = stack.enter_context(callers(1))
        for number in range(rounds + 1):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                with ExitStack() as meanwhile:
                    if chosen[name].scraped:
                        meanwhile.enter_context(scraping(servers[name].metrics_port))
                    seen = figures(servers[name], message, seconds, asking)
                if number:  # the first round warms up
                    found[name].append(seen)
    return found


def table(found: Mapping[str, Sequence[Figures]]) -> str:
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
    parser.add_argument("--starts", type=int, default=3, help="of every server")
    parser.add_argument("--rounds", type=int, default=5, help="of each start")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each of two measurements")
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
        print(tracing_costs())
        if not options.rounds:
            return 0
        found: dict[str, list[Figures]] = {name: [] for name in chosen}
        for _ in range(options.starts):
            seen = compare(chosen, models, options.rounds, options.seconds, options.flags)
            for one, rounds in seen.items():
                found[one] += rounds
        print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
