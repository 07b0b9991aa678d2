"""How long ONNX Runtime's threads should spin for work: python -m benchmarks.spinning.

Every variant is a server of its own with the same models, an LSTM (128 steps of 256), a small
convolutional network such as text recognition has, and a perceptron of 4 MB. Each round loads one
server after the other: one model alone and two models at once, with one caller and with several,
by the fast client of `inferd bench` on the same cores. Medians over the rounds, as ratios to the
first variant.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import yaml
from inferd_client.bench.plan import Plan
from inferd_client.requests import Request, build
from onnx import TensorProto, helper, numpy_helper

from benchmarks.callers import run_plan
from benchmarks.overhead import cpu_seconds
from benchmarks.process import Serving, serving

SPIN = "session.intra_op.spin_duration_us"
ALLOW = "session.intra_op.allow_spinning"
VARIANTS: Mapping[str, Mapping[str, str]] = {
    "none": {ALLOW: "0"},
    "20 us": {ALLOW: "1", SPIN: "20"},
    "100 us": {ALLOW: "1", SPIN: "100"},
    "ONNX Runtime's own": {ALLOW: "1"},
}
ROWS = {"lstm": (128, 64), "conv": (1, 48, 192), "mlp": (512,)}
CASES = (
    *((model, callers) for model in ROWS for callers in (1, 8)),
    ("lstm+conv", 1),
    ("lstm+conv", 4),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """One case's round: requests/s, median milliseconds, processor time a request in us."""

    rate: float
    p50_ms: float
    cost_us: float


def weights(name: str, *shape: int) -> onnx.TensorProto:
    """Return random float32 weights."""
    values = np.random.default_rng(0).standard_normal(shape) * 0.05
    return numpy_helper.from_array(values.astype(np.float32), name)


def lstm() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return an LSTM over `x` [N, 128, 64] and a dense layer behind its last state."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "w", "r"], ["", "last", ""], hidden_size=256),
        helper.make_node("Squeeze", ["last", "first"], ["state"]),
        helper.make_node("MatMul", ["state", "dense"], ["y"]),
    ]
    first = numpy_helper.from_array(np.array([0]), "first")
    dense = weights("dense", 256, 10)
    return nodes, [weights("w", 1, 1024, 64), weights("r", 1, 1024, 256), dense, first]


def conv() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return eight convolutions over `x` [N, 1, 48, 192] and a dense layer."""
    nodes, kept, width, last = [], [], 1, "x"
    layers = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1))
    for number, (wide, stride) in enumerate(layers):
        kept.append(weights(f"w{number}", wide, width, 3, 3))
        pads, strides = [1, 1, 1, 1], [stride, stride]
        arguments = [last, f"w{number}"]
        nodes.append(
            helper.make_node("Conv", arguments, [f"c{number}"], pads=pads, strides=strides)
        )
        nodes.append(helper.make_node("Relu", [f"c{number}"], [f"r{number}"]))
        width, last = wide, f"r{number}"
    nodes.append(helper.make_node("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "dense"], ["y"]))
    return nodes, [*kept, weights("dense", 128, 10)]


def mlp() -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return three dense layers over `x` [N, 512]."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("MatMul", ["h2", "b"], ["h3"]),
        helper.make_node("MatMul", ["h3", "c"], ["y"]),
    ]
    return nodes, [weights("a", 512, 768), weights("b", 768, 768), weights("c", 768, 10)]


def write(root: Path, entries: Mapping[str, str]) -> Path:
    """Lay out the three models with these session config entries."""
    made = {"lstm": lstm(), "conv": conv(), "mlp": mlp()}
    for name, (nodes, kept) in made.items():
        given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *ROWS[name]])
        asked = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
        graph = helper.make_graph(nodes, name, [given], [asked], kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        folder = root / name / "1"
        folder.mkdir(parents=True)
        onnx.save(model, folder / "model.onnx")
        config = {"max_batch_size": 8, "engine_options": dict(entries)}
        (root / name / "model.yaml").write_text(yaml.safe_dump(config))
    return root


def plan(server: Serving, model: str, callers: int, seconds: float) -> Plan:
    """Return a load of one-row requests."""
    row: npt.NDArray[np.float32] = np.zeros((1, *ROWS[model]), np.float32)
    request = build(Request(model, {"x": row})).SerializeToString()
    return Plan(server.url, request, callers, seconds, warmup=0.1, client="fast")


def measure(server: Serving, models: str, callers: int, seconds: float) -> Figures:
    """Load one server's models at once.

    Raises:
        RuntimeError: a request failed.
    """
    plans = [plan(server, model, callers, seconds) for model in models.split("+")]
    before = cpu_seconds(server.pid)
    with ThreadPoolExecutor(len(plans)) as pool:
        found = list(pool.map(run_plan, plans))
    used = cpu_seconds(server.pid) - before
    latencies = [latency for samples in found for latency in samples.latencies]
    count = len(latencies)
    return Figures(count / seconds, statistics.median(latencies) * 1e3, used / count * 1e6)


def compare(
    flags: Sequence[str], rounds: int, seconds: float
) -> dict[tuple[str, int], list[list[Figures]]]:
    """Return the figures of every round by case and variant."""
    found = {case: [[] for _ in VARIANTS] for case in CASES}
    random = np.random.default_rng(0)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        roots = [write(folder / str(n), entries) for n, entries in enumerate(VARIANTS.values())]
        servers = [stack.enter_context(serving(root, flags)) for root in roots]
        for _ in range(rounds):
            for case in CASES:
                for number in random.permutation(len(servers)):
                    found[case][number].append(measure(servers[number], *case, seconds))
    return found


def table(found: Mapping[tuple[str, int], Sequence[Sequence[Figures]]]) -> str:
    """Return a row for each case: the first variant's medians, the others' ratios to them."""
    first, *others = VARIANTS
    lines = [
        f"| models, callers of each | {first} | {' | '.join(others)} |",
        "| --- |" + " --- |" * len(VARIANTS),
    ]
    names = ("rate", "p50_ms", "cost_us")
    for (models, callers), ways in found.items():
        medians = [
            [statistics.median(getattr(figures, name) for figures in way) for name in names]
            for way in ways
        ]
        rate, p50, cost = medians[0]
        cells = [f"{rate:,.0f}/s, p50 {p50:.2f} ms, {cost:,.0f} us"]
        cells += [
            ", ".join(f"{value / base:.2f}" for value, base in zip(way, medians[0], strict=True))
            for way in medians[1:]
        ]
        lines.append(f"| {models}, {callers} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each measurement")
    parser.add_argument("flags", nargs="*", help="of `inferd serve`, after --")
    options = parser.parse_args()
    print(table(compare(options.flags, options.rounds, options.seconds)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
