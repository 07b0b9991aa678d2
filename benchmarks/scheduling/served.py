"""The same on real servers: a Poisson stream with deadlines, in every arrangement.

Capacity and the time of one run are measured first, by callers in a loop, so that loads and
deadlines mean the same everywhere.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_client.requests import Request, build
from onnx import TensorProto, helper, numpy_helper

from benchmarks.goodput.load import Seen, arrivals, closed, opened
from benchmarks.process import serving

SETTINGS = ((0.3, 1.4), (0.7, 2.0), (0.7, 4.0), (1.3, 4.0), (1.3, 10.0), (3.0, 10.0))
"""Loads, and deadlines in runs of one row."""
MOST, CALLERS, WIDTH, ROUNDS = 4, 16, 16, 240
ARRANGEMENTS = {
    "inline": ("inferd_server", "--processes", "inline"),
    "threads": ("inferd_server", "--processes", "threads"),
    "split": ("inferd_server", "--processes", "split", "--fronts", "1"),
    "replicas": ("inferd_server", "--processes", "replicas", "--replicas", "2"),
    "no admission": ("benchmarks.scheduling.unlearning", "--processes", "threads"),
}
CONNECTIONS = {"replicas": 32}
"""Of callers, where one would lead to one process of several."""
YAML = f"max_batch_size: {MOST}\npreferred_batch_size: [{MOST}]\n"
PATIENCE_S, TOGETHER_S = 60.0, 3.0


def served(model: str, arrangement: str, seconds: float) -> Iterator[str]:
    """Start a server, load it, and yield a line of the table for each load."""
    module, *flags = ARRANGEMENTS[arrangement]
    request = build(Request("m", {"X": np.ones((1, WIDTH), np.float32)}))
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), MODELS[model]())
        where = environment() if model == "timed" else None
        with serving(Path(folder), flags, module=module, environment=where) as server:
            connections = CONNECTIONS.get(arrangement, 1)
            rate, run = asyncio.run(measure(server.url, request, connections))
            for seed, (load, runs) in enumerate(SETTINGS):
                moments = arrivals(load * rate, seconds, seed)
                stream = opened(server.url, request, moments, runs * run, connections)
                sent = len(moments) / seconds
                yield row(model, arrangement, load, runs, sent, asyncio.run(stream))


def environment() -> dict[str, str]:
    """Return the variables of processes whose engines take their time without the processor."""
    timed = str(Path(__file__).with_name("timed"))
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{timed}{os.pathsep}{path}" if path else timed}


async def measure(url: str, request: ModelInferRequest, connections: int) -> tuple[float, float]:
    """Return the requests a second that a server can do, and the seconds of a single one."""
    await closed(url, request, CALLERS, 1.0, PATIENCE_S, connections)
    alone = await closed(url, request, 1, 1.0, PATIENCE_S)
    together = await closed(url, request, CALLERS, TOGETHER_S, PATIENCE_S, connections)
    return together.between(0.0, TOGETHER_S) / TOGETHER_S, statistics.median(alone.took)


def row(model: str, arrangement: str, load: float, runs: float, rate: float, seen: Seen) -> str:
    """Write what became of a stream of so many requests a second as a line of the table."""
    cells = (
        *(model, f"{load:g}, {runs:g}", arrangement, f"{rate:.0f}"),
        *(f"{len(seen.ended) / seen.sent:.0%}", f"{seen.refused / seen.sent:.0%}"),
        f"{seen.late:.1%}",
    )
    return "| " + " | ".join(cells) + " |"


HEADINGS = ("model", "load, deadline", "arrangement", "sent/s", "in time", "refused", "late")


def by_row(rounds: int = ROUNDS) -> onnx.ModelProto:
    """Each row takes as long as the first: work on 65,536 numbers that are made of it."""
    wide = 1 << 16
    nodes = [helper.make_node("MatMul", ["X", "w"], ["h0"])]
    nodes += [helper.make_node("Erf", [f"h{i}"], [f"h{i + 1}"]) for i in range(rounds)]
    nodes += [helper.make_node("ReduceMax", [f"h{rounds}"], ["Y"], axes=[1], keepdims=1)]
    return model_of(nodes, {"w": np.full((WIDTH, wide), 0.01, np.float32)})


def fixed() -> onnx.ModelProto:
    """Weights that have to come from memory, whatever the number of rows."""
    draw = np.random.default_rng(0)
    sizes = [WIDTH, 4096, 4096, 4096, 4096, 1]
    nodes, weights = [], {}
    for index, (width, following) in enumerate(pairwise(sizes)):
        name = f"w{index}"
        weights[name] = draw.normal(0, 0.01, (width, following)).astype(np.float32)
        source, target = ("X" if not index else f"h{index}"), f"h{index + 1}"
        nodes.append(helper.make_node("MatMul", [source, name], [target]))
    nodes[-1].output[0] = "Y"
    return model_of(nodes, weights)


MODELS = {"rows": by_row, "weights": fixed, "timed": partial(by_row, 0)}


def model_of(nodes: Sequence[onnx.NodeProto], weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    """Return a model from X to Y with a free number of rows."""
    given = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", WIDTH])
    found = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["rows", 1])
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "m", [given], [found], kept)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write(root: Path, model: onnx.ModelProto) -> None:
    """Lay a model out as a repository."""
    (root / "m" / "1").mkdir(parents=True)
    onnx.save(model, root / "m" / "1" / "model.onnx")
    (root / "m" / "model.yaml").write_text(YAML)
