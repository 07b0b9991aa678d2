"""The batch dimension of an ONNX model, followed through its graph to where rows are mixed.

A table of operators, and not a proof: where the batch dimension went is forgotten after an
operator that is not in it, and then nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeAlias

from inferd_engines.axis_rules import KEEPS, MERGES, MOVES, Axis, Follower, broadcast, ints
from inferd_engines.onnx_graph import FLOATING, Constant, Graph, Model, Node


class Mixing(Enum):
    """What a node does to the rows of a batch."""

    PROVEN = "proven"
    """Every row's result depends on all rows, whatever they hold."""
    LIKELY = "likely"
    """It puts rows together; what follows may take them apart again."""
    POSSIBLE = "possible"
    """Models whose rows are independent use it, too."""


@dataclass(frozen=True, slots=True)
class MixingNode:
    """A node that mixes rows."""

    mixing: Mixing
    name: str
    operator: str
    what: str
    """What it does over the batch dimension, for a sentence."""
    whole: bool
    """True if its input comes from whole numbers, text or flags that a caller sends."""

    def __str__(self) -> str:
        """Name it for a sentence."""
        return f"node {self.name or '(without a name)'!r} ({self.operator}) {self.what}"


Axes: TypeAlias = dict[str, Axis]
DYNAMIC = frozenset({"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM"})
"""Their scale is found from the least and the largest element of the whole tensor."""
SOFTMAX = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
FROM_AXIS = frozenset({"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"})
ALONG: Mapping[str, int] = {
    "ArgMax": 0, "ArgMin": 0, "TopK": -1, "LpNormalization": -1, "CumSum": 0, "CumProd": 0,
}  # fmt: skip
"""Operators that look along one axis, and which one that is unless they say so."""
GATHERS = frozenset({"NonZero", "NonMaxSuppression", "Unique", "Compress"})


def mixing_nodes(model: Model) -> tuple[MixingNode, ...]:
    """Return the nodes that mix rows, if the first dimension of every input counts rows."""
    walk = _Walk(model)
    axes = {
        one.name: Axis(0, one.rank, whole=one.kind not in FLOATING) for one in model.graph.inputs
    }
    walk.graph(model.graph, axes, dict(model.graph.constants), certain=True)
    return tuple(walk.found)


class _Walk:
    """One way through a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self.found: list[MixingNode] = []

    def graph(
        self, graph: Graph, axes: Axes, constants: dict[str, Constant], *, certain: bool
    ) -> None:
        """Follow the rows through a graph.

        Args:
            graph: its nodes run in this order.
            axes: of the values that come from the inputs; added to.
            constants: that the graph sees; added to.
            certain: False in graphs that may run for each row.
        """
        constants.update(graph.constants)
        for node in graph.nodes:
            if node.operator == "Constant":
                constants.update(_constant(node))
            reached = [name for name in node.inputs if name in axes]
            for part in node.graphs:
                inner = axes | {
                    one.name: Axis(None, None, _whole(axes, reached)) for one in part.inputs
                }
                self.graph(part, inner, dict(constants), certain=certain and node.operator == "If")
                reached += [name for name in part.outputs if name in inner]
            if reached and node.operator not in ("Shape", "Size"):
                self._node(node, axes, constants, certain)

    def _node(
        self, node: Node, axes: Axes, constants: Mapping[str, Constant], certain: bool
    ) -> None:
        function = self._model.functions.get((node.domain, node.operator))
        if function is not None:
            self._call(node, function, axes, constants, certain)
            return
        follower = Follower(node, axes, constants, self._model.opset)
        mixing = mixes(follower)
        if mixing is not None:
            kind, what = mixing
            kind = Mixing.LIKELY if kind is Mixing.PROVEN and not certain else kind
            self.found.append(
                MixingNode(kind, node.name, node.operator, what, _whole(axes, node.inputs))
            )
        axes.update(follow(follower, mixed=mixing is not None))

    def _call(
        self,
        node: Node,
        function: Graph,
        axes: Axes,
        constants: Mapping[str, Constant],
        certain: bool,
    ) -> None:
        pairs = list(zip((one.name for one in function.inputs), node.inputs, strict=False))
        inner = {own: axes[given] for own, given in pairs if given in axes}
        known = {own: constants[given] for own, given in pairs if given in constants}
        self.graph(function, inner, known, certain=certain)
        for own, given in zip(function.outputs, node.outputs, strict=False):
            if own in inner:
                axes[given] = inner[own]


def mixes(node: Follower) -> tuple[Mixing, str] | None:
    """Say how a node mixes rows, and by what; None if it is not known to.

    Args:
        node: with the axes of its inputs.
    """
    first = node.axis(0)
    if first is None:
        return None
    found = (kind for kind, test in KINDS if test(node, first))
    return next(found, None)


def _dynamic(node: Follower, first: Axis) -> bool:
    del first
    return node.operator in DYNAMIC


def _softmax(node: Follower, first: Axis) -> bool:
    # Older ones flatten what comes after their axis.
    old = node.opset < 13
    return node.operator in SOFTMAX and _from(node, first, 1 if old else -1, old)


def _trains(node: Follower, first: Axis) -> bool:
    del first
    return node.operator == "BatchNormalization" and bool(node.integer("training_mode", 0))


def _normalises(node: Follower, first: Axis) -> bool:
    if node.operator == "MeanVarianceNormalization":
        return first.position in node.integers("axes", (0, 2, 3))
    return node.operator in FROM_AXIS and _from(node, first, -1, True)


def _reduces(node: Follower, first: Axis) -> bool:
    axes = node.axes()
    if axes is None or not node.operator.startswith("Reduce"):
        return False
    if not axes:
        return not node.integer("noop_with_empty_axes", 0)
    return first.position is not None and first.position in first.normal(axes)


def _from(node: Follower, first: Axis, default: int, onwards: bool) -> bool:
    """True if an operator runs over the batch dimension: along an axis, or from it onwards."""
    axis = next(iter(first.normal((node.integer("axis", default),))), None)
    if axis is None or first.position is None:
        return False
    return first.position >= axis if onwards else first.position == axis


def _along(node: Follower, first: Axis) -> bool:
    if node.operator not in ALONG:
        return False
    axis = node.integer("axis", ALONG[node.operator])
    if node.operator.startswith("Cum"):
        given = ints(node.constant(1))
        if not given:
            return False
        axis = given[0]
    return first.position is not None and first.position in first.normal((axis,))


def _selects(node: Follower, first: Axis) -> bool:
    if node.operator not in GATHERS:
        return False
    axis = node.attributes.get("axis")
    return not isinstance(axis, int) or first.position in (None, axis)


# ONNX Runtime keeps what a run made of its statistics, for all later runs of the session.
TRAINS = (
    "is in training mode: it normalises over all rows, and every run changes the answers of later "
    "ones; export the model after module.eval()"
)
KINDS: Sequence[tuple[tuple[Mixing, str], Callable[[Follower, Axis], bool]]] = (
    ((Mixing.PROVEN, "takes its scale from all rows"), _dynamic),
    ((Mixing.PROVEN, TRAINS), _trains),
    ((Mixing.LIKELY, "reduces over the batch dimension"), _reduces),
    ((Mixing.LIKELY, "runs over the batch dimension"), _softmax),
    ((Mixing.LIKELY, "normalises over the batch dimension"), _normalises),
    ((Mixing.LIKELY, "runs along the batch dimension"), _along),
    ((Mixing.POSSIBLE, "selects elements over the batch dimension"), _selects),
)
"""What operators do with rows, and how that is seen."""


def follow(node: Follower, *, mixed: bool) -> Axes:
    """Return the axes of a node's outputs, which come from the inputs.

    Args:
        node: with the axes of its inputs.
        mixed: it put rows together, and what follows is not looked at.
    """
    lost = Axis(None, None, _whole(node.known, node.inputs))
    if mixed:
        return dict.fromkeys(node.outputs, lost)
    operator, axis = node.operator, node.axis(0)
    after: Axis | None = None
    if operator in MERGES:
        after = broadcast(node)
    elif operator in MOVES:
        after = MOVES[operator](node)
    elif operator.startswith("Reduce") or operator in ("ArgMax", "ArgMin"):
        after = _reduced(node, axis)
    elif operator in KEEPS and axis is not None:
        after = axis
    return dict.fromkeys(node.outputs, lost if after is None else replace(after, whole=lost.whole))


def _reduced(node: Follower, first: Axis | None) -> Axis | None:
    axes: Sequence[int] | None = node.axes()
    if node.operator.startswith("Arg"):
        axes = (node.integer("axis", 0),)
    if first is None or not axes or first.position is None:
        return None
    gone = first.normal(axes)
    if node.integer("keepdims", 1):
        return first
    rank = None if first.rank is None else first.rank - len(gone)
    return Axis(first.position - sum(1 for one in gone if one < first.position), rank)


def _whole(axes: Mapping[str, Axis], names: Iterable[str]) -> bool:
    return any(axes[name].whole for name in names if name in axes)


def _constant(node: Node) -> Mapping[str, Constant]:
    """Return the output of a Constant, by name."""
    for value in node.attributes.values():
        if isinstance(value, Constant):
            return {node.outputs[0]: value}
        if isinstance(value, tuple):
            return {node.outputs[0]: Constant((len(value),), value)}
        return {node.outputs[0]: Constant((), (value,))}
    return {}
