"""The run: rounds over all models and servers, one server at a time."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from inferd.oip.v2 import inference_pb2 as pb
from inferd.oip.v2.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx

from benchmarks.overhead import cpu_seconds
from benchmarks.peers import answers
from benchmarks.peers.analyzer import WINDOWS, Analyzer
from benchmarks.peers.contenders import Contender
from benchmarks.peers.lean import LeanClient
from benchmarks.peers.loads import Load
from benchmarks.peers.memory import memory, tree
from benchmarks.peers.models import MODELS, Model
from benchmarks.peers.results import BARE, Results
from benchmarks.peers.running import Running, running
from benchmarks.served import bare

# The warm-up's part of the time of a measurement, and the shortest in seconds: a window that no
# request falls into is an error of `perf_analyzer`.
_WARM_UP = 0.2
_SHORTEST = 0.25 * WINDOWS


class Measuring:
    """Measures servers under loads, into `results`; what went wrong is in `failures`."""

    def __init__(
        self,
        client: Analyzer | LeanClient,
        contenders: Sequence[Contender],
        loads: Sequence[Load],
        roots: Mapping[str, Path],
        seconds: float,
    ) -> None:
        self._client = client
        self._contenders = contenders
        self._loads = loads
        self._roots = roots
        self._seconds = seconds
        self.results = Results()
        self.failures: list[str] = []

    def round(self, number: int) -> None:
        """Measure everything once; every second round goes through the servers backwards."""
        order = list(self._contenders)[:: -1 if number % 2 else 1]
        for name, root in self._roots.items():
            model = MODELS[name]
            loads = [load for load in self._loads if load.model == name]
            for load in loads:
                if load.bare:
                    self._bare(load, model, root)
            for contender in order:
                print(f"round {number + 1}: {name}, {contender.title}", file=sys.stderr)
                wanted = [one for one in loads if fits(contender, one)]
                try:
                    self._serve(contender, model, root, wanted)
                except RuntimeError as error:
                    print(error, file=sys.stderr)
                    self.failures.append(f"round {number + 1}, {name}: {error}")

    def _bare(self, load: Load, model: Model, root: Path) -> None:
        engine = open_onnx(model.path(root), EngineOptions())
        for rows in (1, model.max_batch):
            per_s = bare(engine, rows, model.input_shape, self._seconds)
            self.results.add(load.name, "per_s", f"{BARE}, batches of {rows}", per_s)
        engine.close()

    def _serve(self, contender: Contender, model: Model, root: Path, loads: Sequence[Load]) -> None:
        with running(contender, model, root) as server:
            answers.check(server.channel, model, model.path(root), contender.streams)
            for load in loads:
                self._load(contender, server, load)
            used = memory(tree(server.pid))
            what = f"{model.name}, process"
            self.results.add(what, "start_s", contender.name, server.start_s)
            self.results.add(what, "VmHWM", contender.name, used.peak)
            self.results.add(what, "PSS", contender.name, used.shared)

    def _load(self, contender: Contender, server: Running, load: Load) -> None:
        model, seconds = MODELS[load.model], self._seconds * load.times
        warm_up = max(seconds * _WARM_UP, load.times * _SHORTEST)
        self._client.measure(server.url, model, load, warm_up)
        before = usage(server, model.name)
        found = self._client.measure(server.url, model, load, seconds)
        after = usage(server, model.name)
        self.results.add(load.name, "per_s", contender.name, found.per_s)
        self.results.add(load.name, "p50_ms", contender.name, found.p50_ms)
        self.results.add(load.name, "p99_ms", contender.name, found.p99_ms)
        if before is not None and after is not None:
            cost = (after.cpu_s - before.cpu_s) / (after.requests - before.requests) * 1e6
            self.results.add(load.name, "cpu_us", contender.name, cost)


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds of processor time of a server so far, and the requests that it answered."""

    cpu_s: float
    requests: int


def usage(server: Running, model: str) -> Usage | None:
    """Return what a server used so far; None of one that counts no requests."""
    stub = GRPCInferenceServiceStub(server.channel)  # type: ignore[no-untyped-call]
    try:
        found = stub.ModelStatistics(pb.ModelStatisticsRequest(name=model), timeout=10)
    except grpc.RpcError:
        return None
    return Usage(cpu_seconds(server.pid), sum(one.inference_count for one in found.model_stats))


def fits(contender: Contender, load: Load) -> bool:
    """Return whether the server can do what the load asks for."""
    return (contender.streams or not load.stream) and (
        contender.shared_memory or not load.shared_memory
    )
