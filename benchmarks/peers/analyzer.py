"""`perf_analyzer`, the load generator in C++ that Triton's makers publish."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.loads import Load
from benchmarks.peers.models import Model, example

# It ends after this many windows in a row that have answers and differ by less than _SPREAD
# percent, which is always, and gives up after _TRIALS windows.
WINDOWS = 3
_SPREAD = 999
_TRIALS = 10


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement: requests per second, and latencies in milliseconds."""

    per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Analyzer:
    """The program in the folder that `make bench-peers` installs it into."""

    folder: Path
    patience_s: float = 60.0
    """What it gets besides its windows, to start and to wait for what is in flight."""

    def check(self) -> None:
        """Raise RuntimeError, with what to do, unless the program starts."""
        done = self._run(["--version"], self.patience_s)
        if "libb64" in done.stderr:
            raise RuntimeError("perf_analyzer needs libb64.so.0d: apt-get install libb64-0d")
        if done.returncode:
            raise RuntimeError(f"perf_analyzer does not start: {done.stdout}{done.stderr}")

    def measure(self, url: str, model: Model, load: Load, seconds: float) -> Figures:
        """Put the load on a server for about this long.

        Raises:
            RuntimeError: a request failed, no figures came, or it did not end in time.
        """
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.csv"
            window_ms = round(seconds * 1000 / WINDOWS)
            flags = arguments(url, model, load, window_ms, write_input(Path(folder), model))
            try:
                done = self._run([*flags, "-f", str(report)], self.patience_s + seconds * _TRIALS)
            except subprocess.TimeoutExpired as error:
                text = f"{load.name}: perf_analyzer did not end within {error.timeout:g} s"
                raise RuntimeError(text) from error
            if done.returncode or not report.is_file():
                raise RuntimeError(f"{load.name}: {done.stdout}{done.stderr}")
            return parse(report.read_text())

    def _run(self, flags: Sequence[str], limit_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.folder / "bin/perf_analyzer"), *flags],
            env={**os.environ, "LD_LIBRARY_PATH": str(self.folder / "nvidia/cuda_runtime/lib")},
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
        )


def write_input(folder: Path, model: Model) -> Path:
    """Write the row that every request carries, in the JSON that `perf_analyzer` reads.

    The values that it would make up are random bits, NaN and denormals among them.
    """
    path = folder / "input.json"
    tensor = {"b64": b64encode(example(model).tobytes()).decode(), "shape": model.input_shape}
    path.write_text(json.dumps({"data": [{model.input: tensor}]}))
    return path


def arguments(url: str, model: Model, load: Load, window_ms: int, data: Path) -> list[str]:
    """Return its flags for a load: requests of one row."""
    flags = [
        *("-m", model.name, "-u", url, "-i", "grpc", "--async"),
        *("--concurrency-range", str(load.callers), "-b", "1"),
        *("--input-data", str(data)),
        *("-p", str(window_ms), "-r", str(_TRIALS), "-s", str(_SPREAD)),
    ]
    if load.stream:
        flags.append("--streaming")
    if load.shared_memory:
        flags += ["--shared-memory", "system"]
    return flags


def parse(report: str) -> Figures:
    """Read its CSV report of one concurrency.

    Raises:
        RuntimeError: there is not exactly one row, or it says that no request succeeded.
    """
    rows: list[Mapping[str, str]] = list(csv.DictReader(report.splitlines()))
    if len(rows) != 1:
        raise RuntimeError(f"one row was expected in the report:\n{report}")
    row = rows[0]
    found = Figures(
        float(row["Inferences/Second"]),
        float(row["p50 latency"]) / 1000,
        float(row["p99 latency"]) / 1000,
    )
    if min(found.per_s, found.p50_ms) <= 0:
        raise RuntimeError(f"no request succeeded:\n{report}")
    return found
