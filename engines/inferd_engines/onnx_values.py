"""What an ONNX file tells of the values that its model was made for, for trying it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from inferd_engines.batch_axis import MixingNode, mixing_nodes
from inferd_engines.onnx_graph import Constant, Graph, Model, Node, Value, read_model

MOST_CONSTANTS = 12
LARGEST = 1e9
"""Of a constant: those beyond are masks and bounds."""
MOST_CATEGORIES = 32
MOST_SIZES = 24
LONGEST = 4096
"""Of a dimension that is tried."""
CATEGORIES = ("cats_strings", "cats_int64s", "keys_strings", "keys_int64s", "keys_floats")
"""Attributes that list what an operator takes, of those for tables of features."""
COLUMNS = frozenset({"ArrayFeatureExtractor", "Gather"})
"""Operators that choose columns by their second input."""
THROUGH = frozenset({"Reshape", "Cast", "Identity", "Flatten", "Squeeze", "Unsqueeze", "Concat"})
"""Operators that hand on what they are given."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model besides its signature; nothing of a file that cannot be read."""

    constants: tuple[float, ...] = ()
    """Numbers that the graph compares or computes with, such as the id of a padding."""
    categories: Mapping[str, Mapping[int | None, tuple[Value, ...]]] = field(default_factory=dict)
    """By input and column (None: all of them), the values that the model knows."""
    sizes: tuple[int, ...] = ()
    """Of the dimensions of weights: those of inputs may have to be equal to one."""
    mixing: tuple[MixingNode, ...] = ()
    producer: str = ""
    """What wrote the file, as it calls itself."""


def read_facts(content: bytes) -> ModelFacts:
    """Look into the bytes of a model file."""
    model = read_model(content)
    if model is None:
        return ModelFacts()
    return ModelFacts(
        constants_of(model),
        categories_of(model.graph),
        sizes_of(model),
        mixing_nodes(model),
        model.producer,
    )


def constants_of(model: Model) -> tuple[float, ...]:
    """Return the single numbers of a model, whole ones first and small ones before large ones."""
    found = set()
    for constant in _constants(model):
        one = constant.values[0] if len(constant.values) == 1 else None
        if isinstance(one, int | float) and not isinstance(one, bool):
            found.add(float(one))
    usable = [value for value in found if abs(value) < LARGEST and value not in (0, 1)]
    return tuple(sorted(usable, key=lambda v: (v != int(v), abs(v), v))[:MOST_CONSTANTS])


def sizes_of(model: Model) -> tuple[int, ...]:
    """Return the sizes of weights' dimensions, those of the first nodes first."""
    found: dict[int, None] = {}
    for constant in _constants(model):
        found.update((size, None) for size in constant.shape if 1 < size <= LONGEST)
    for node in _nodes(model.graph):
        for value in node.attributes.values():
            if isinstance(value, tuple) and 1 < len(value) <= LONGEST:
                found[len(value)] = None
    return tuple(found)[:MOST_SIZES]


def categories_of(graph: Graph) -> Mapping[str, Mapping[int | None, tuple[Value, ...]]]:
    """Return the values that the first operators on the inputs know."""
    makers = {output: node for node in graph.nodes for output in node.outputs}
    inputs = {one.name for one in graph.inputs}
    found: dict[str, dict[int | None, tuple[Value, ...]]] = {}
    for node in graph.nodes:
        known = next((node.attributes[n] for n in CATEGORIES if node.attributes.get(n)), None)
        if isinstance(known, tuple) and node.inputs:
            for name, column in _origins(node.inputs[0], makers, inputs, graph.constants):
                found.setdefault(name, {}).setdefault(column, known[:MOST_CATEGORIES])
    return found


def _origins(
    name: str,
    makers: Mapping[str, Node],
    inputs: set[str],
    constants: Mapping[str, Constant],
    column: int | None = None,
) -> Iterator[tuple[str, int | None]]:
    """Yield the inputs that a value is handed on from, and the column of each that it is."""
    if name in inputs:
        yield name, column
        return
    node = makers.get(name)
    if node is None:
        return
    if node.operator in COLUMNS:
        chosen = constants[node.inputs[1]].values if node.inputs[1] in constants else ()
        only = chosen[0] if len(chosen) == 1 and isinstance(chosen[0], int) else column
        yield from _origins(node.inputs[0], makers, inputs, constants, only)
    elif node.operator in THROUGH:
        sources = node.inputs if node.operator == "Concat" else node.inputs[:1]
        for source in sources:
            yield from _origins(source, makers, inputs, constants, column)


def _constants(model: Model) -> Iterator[Constant]:
    """Yield every tensor of a model, and the numbers of Constant nodes."""
    for graph in (model.graph, *model.functions.values()):
        yield from _graph_constants(graph)


def _graph_constants(graph: Graph) -> Iterator[Constant]:
    yield from graph.constants.values()
    for node in graph.nodes:
        for value in node.attributes.values():
            if isinstance(value, Constant):
                yield value
            elif node.operator == "Constant" and isinstance(value, int | float):
                yield Constant((), (value,))
        for part in node.graphs:
            yield from _graph_constants(part)


def _nodes(graph: Graph) -> Iterator[Node]:
    for node in graph.nodes:
        yield node
        for part in node.graphs:
            yield from _nodes(part)
