"""Compare inferd with other servers in one interleaved run.

    make bench-peers [FLAGS="--rounds 3 --seconds 3 --servers inferd,aio --loads digits-32"]

Every round starts each server alone with each model, checks an answer against ONNX Runtime,
warms the server up under the load, measures, and stops it. The load is `perf_analyzer` on the
same cores, or with `--client lean` that of `inferd bench`. The table shows the median over the
rounds, and before it the ratio of inferd's median to it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import onnxruntime

from benchmarks.peers import models
from benchmarks.peers.analyzer import Analyzer
from benchmarks.peers.contenders import CONTENDERS, TOOLS
from benchmarks.peers.lean import LeanClient
from benchmarks.peers.loads import LOADS
from benchmarks.peers.measuring import Measuring

Item = TypeVar("Item")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 1 when a server failed, a request failed or an answer was wrong."""
    options = _parser().parse_args(arguments)
    try:
        measuring = measure(options)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    titles = {one.name: one.title for one in chosen(CONTENDERS, options.servers)}
    print(measuring.results.table(titles))
    for failure in measuring.failures:
        print(failure, file=sys.stderr)
    return int(bool(measuring.failures))


def measure(options: argparse.Namespace) -> Measuring:
    """Measure, and write every figure after each round."""
    contenders = chosen(CONTENDERS, options.servers)
    loads = chosen(LOADS, options.loads)
    lean = options.client == "lean"
    client = LeanClient() if lean else Analyzer(TOOLS / "perf_analyzer")
    client.check()
    with tempfile.TemporaryDirectory() as folder:
        needed = dict.fromkeys(load.model for load in loads)
        roots = models.write(Path(folder), needed)
        measuring = Measuring(client, contenders, loads, roots, options.seconds)
        for number in range(options.rounds):
            measuring.round(number)
            if options.json:
                _write(options.json, measuring, options)
    return measuring


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--client", choices=("perf_analyzer", "lean"), default="perf_analyzer")
    for name, table in (("servers", CONTENDERS), ("loads", LOADS)):
        parser.add_argument(f"--{name}", help=f"of {','.join(table)} (default: all)")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    return parser


def chosen(table: Mapping[str, Item], names: str | None) -> list[Item]:
    """Return the items of a list of names with commas between, or all.

    Raises:
        SystemExit: there is no such name.
    """
    wanted = names.split(",") if names else list(table)
    if unknown := [name for name in wanted if name not in table]:
        raise SystemExit(f"{', '.join(unknown)}: not one of {', '.join(table)}")
    return [table[name] for name in wanted]


def _write(path: Path, measuring: Measuring, options: argparse.Namespace) -> None:
    about = {
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
        "client": options.client,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    path.write_text(json.dumps({"about": about, "figures": measuring.results.as_json()}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
