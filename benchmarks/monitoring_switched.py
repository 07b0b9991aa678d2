"""The cost of monitoring in one server, which callers switch and which is so always the same.

    python -m benchmarks.monitoring_switched [--starts 3] [--rounds 8] [--seconds 4]
        [--only NAME ...]

Two servers differ by more than monitoring may cost, from one start to the next. Here one has all
of it, and callers decide what it does for some seconds: whether they ask a copy of the digits model
that is sampled, recorded and watched for drift or one that is not, whether the requests that
bring a traceparent, one in a hundred, have it sampled, and whether /metrics is read. The load is
unary, 4 connections with 16 requests outstanding on each, and beside it the one in a hundred from
another process. Told are the means of the ratios to the server of the same round of which nothing
is asked, with their standard error. What it cannot switch, it does not see: a decrement for each
request that is not traced (`python -m benchmarks.monitoring --rounds 0`), and alerts, which look
at the counters all the time.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from inferd_client.bench.plan import Plan
from inferd_server.settings.model import shipped_models
from sklearn.datasets import load_digits

from benchmarks.callers import callers, run_plan
from benchmarks.monitoring import receiver, scraping
from benchmarks.overhead import cpu_seconds
from benchmarks.process import Serving, digits_request, serving

CONNECTIONS, OUTSTANDING = 4, 16
TRACED = 0.01
"""Part of the requests that bring a traceparent."""
SAMPLED, PLAIN, OTHER = "digits", "digits-b", "digits-c"
"""Models: one that is looked at, and two that are not."""
NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Asked:
    """What callers have the server do."""

    model: str = PLAIN
    traced: bool = False
    scraped: bool = False


ASKED = {
    NOTHING: Asked(),
    "nothing, of another copy": Asked(OTHER),
    "traces 1 %": Asked(traced=True),
    "samples 1 %, recorded and watched for drift": Asked(SAMPLED),
    "scraped each second": Asked(scraped=True),
    "all of it": Asked(SAMPLED, traced=True, scraped=True),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement: requests/s, and microseconds of processor time a request."""

    rate: float
    cost_us: float


def make_models(folder: Path) -> None:
    """Make the copies of the digits model."""
    for name in (SAMPLED, PLAIN, OTHER):
        shutil.copytree(shipped_models() / "digits", folder / name)
    images = load_digits().images.astype(np.float32)
    np.savez(folder / SAMPLED / "1/reference.npz", image=images)
    config = folder / SAMPLED / "model.yaml"
    config.write_text(config.read_text() + "sample_share: 0.01\n")


def figures(
    server: Serving, asked: Asked, seconds: float, share_of: float, asking: Executor
) -> Figures:
    """Have two processes load a server; one of them sends what brings a traceparent.

    Args:
        server: to load.
        asked: what it is to do.
        seconds: of the load.
        share_of: requests/s of which that one sends its share.
        asking: the processes.
    """
    flag = f"00-{1:032x}-{1:016x}-{asked.traced:02x}"
    request = digits_request(asked.model).SerializeToString()
    some = Plan(
        server.url, request, 8, seconds, rate=TRACED * share_of, metadata=(("traceparent", flag),)
    )
    full = Plan(
        server.url, request, CONNECTIONS * OUTSTANDING, seconds, client="fast",
        connections=CONNECTIONS,
    )  # fmt: skip
    with ExitStack() as meanwhile:
        if asked.scraped:
            meanwhile.enter_context(scraping(server.metrics_port))
        before = cpu_seconds(server.pid)
        loads = [asking.submit(run_plan, plan) for plan in (full, some)]
        found, more = (load.result() for load in loads)
        used = cpu_seconds(server.pid) - before
    count = found.codes.total()
    rate = count / (found.ended - found.started)
    return Figures(rate, used / (count + more.codes.total()) * 1e6)


def compare(
    asked: Mapping[str, Asked],
    flags: Sequence[str],
    folder: Path,
    rounds: int,
    seconds: float,
) -> list[dict[str, Figures]]:
    """Start a server; return the figures of every round, by what was asked."""
    found: list[dict[str, Figures]] = []
    names, rate = list(asked), 10_000.0
    with serving(folder, flags) as server, callers(2) as asking:
        for number in range(-1, rounds):
            # What is sent later than it was asked for falls on each in turn.
            order = names[::-1] if number % 2 else names
            seen = {name: figures(server, asked[name], seconds, rate, asking) for name in order}
            rate = seen[NOTHING].rate
            if number >= 0:  # the first round warms up
                found.append(seen)
    return found


def table(found: Sequence[Mapping[str, Figures]]) -> str:
    """Return the medians, and the means of the ratios of each round with their standard errors."""
    head = "| asked of the server | requests/s | us a request | rate | cost |"
    lines = [head, "| --- | ---: | ---: | ---: | ---: |"]
    for name in found[0]:
        rate, cost = (
            statistics.median(getattr(seen[name], key) for seen in found)
            for key in Figures.__slots__
        )
        ratios = [
            [getattr(seen[name], key) / getattr(seen[NOTHING], key) for seen in found]
            for key in Figures.__slots__
        ]
        told = " | ".join(
            f"{statistics.mean(one):.3f} ± {statistics.stdev(one) / len(one) ** 0.5:.3f}"
            for one in ratios
        )
        lines.append(f"| {name} | {rate:,.0f} | {cost:.1f} | {told} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--starts", type=int, default=3, help="of the server")
    parser.add_argument("--rounds", type=int, default=8, help="of each start")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="besides nothing")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, after --")
    options = parser.parse_args()
    wanted = {NOTHING, *options.only} if options.only else set(ASKED)
    asked = {name: one for name, one in ASKED.items() if name in wanted}
    found: list[dict[str, Figures]] = []
    with TemporaryDirectory() as name, receiver() as traces_to:
        folder = Path(name)
        make_models(folder / "models")
        flags = (
            f"--traces-to={traces_to}", "--trace-share=0", "--trace-pause-s=2",
            f"--record-to={folder}/recording",
            *options.flags,
        )  # fmt: skip
        for _ in range(options.starts):
            found += compare(asked, flags, folder / "models", options.rounds, options.seconds)
    print(table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
