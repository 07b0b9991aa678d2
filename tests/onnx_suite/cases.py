"""The cases of ONNX' own backend test suite: models, each with inputs."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
import onnx
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases
from onnx.backend.test.loader import load_model_tests

Array: TypeAlias = np.ndarray[Any, Any]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

KINDS = ("simple", "pytorch-operator", "pytorch-converted")
"""Of the models that the package holds as files, with their inputs beside them."""

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial"}
    | {"Bernoulli", "Dropout"}
)
"""Operators whose answers are drawn at random."""


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and what it is given."""

    name: str
    content: bytes
    inputs: Mapping[str, Array]
    """By name; empty where one of them is no tensor."""
    random: bool
    """Two runs need not give the same values."""


def all_cases() -> list[Case]:
    """Return every case, sorted by name; names are unique."""
    with warnings.catch_warnings():
        # Inputs are computed as the package is imported, with infinities and zeros among them.
        warnings.simplefilter("ignore")
        nodes = collect_testcases(None)
    found = [generated_case(test) for test in nodes]
    found += [read_case(test.name, Path(test.model_dir)) for test in stored_tests()]
    return sorted(found, key=lambda case: case.name)


def generated_case(test: Any) -> Case:
    """Return a case that the package makes in memory."""
    return case_of(test.name, test.model, test.data_sets[0][0])


def stored_tests() -> Iterator[Any]:
    """Yield the cases that the package holds as files."""
    for kind in KINDS:
        yield from load_model_tests(kind=kind)


def read_case(name: str, folder: Path) -> Case:
    """Read a model and its first set of inputs."""
    model = onnx.load(folder / "model.onnx")
    paths = sorted((folder / "test_data_set_0").glob("input_*.pb"), key=number)
    values = [read_value(path, model.graph) for path in paths]
    return case_of(name, model, values)


def number(path: Path) -> int:
    """Return the number at the end of a file's name."""
    return int(path.stem.rpartition("_")[2])


def read_value(path: Path, graph: GraphProto) -> TensorProto | None:
    """Read an input; None if it is no tensor."""
    wanted = fed_inputs(graph)[number(path)]
    if wanted.type.WhichOneof("value") != "tensor_type":
        return None
    return TensorProto.FromString(path.read_bytes())


def fed_inputs(graph: GraphProto) -> Sequence[onnx.ValueInfoProto]:
    """Return the inputs that have no value of their own."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def case_of(name: str, model: ModelProto, values: Sequence[Any]) -> Case:
    """Put a case together from the values of its inputs, in the order of the file."""
    wanted = fed_inputs(model.graph)
    arrays = [array_of(value) for value in values]
    if len(arrays) != len(wanted):
        # An optional input that is left out is none of the file's.
        arrays = [array for array in arrays if array is not None]
    pairs = list(zip((value.name for value in wanted), arrays, strict=True))
    tensors = {key: array for key, array in pairs if array is not None}
    inputs = tensors if len(tensors) == len(pairs) else {}
    content = model.SerializeToString()
    return Case(re.sub(r"\W", "_", name), content, inputs, is_random(model.graph))


def array_of(value: Any) -> Array | None:
    """Return a tensor as an array, text as objects; None if it is a sequence or nothing."""
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    if value is None or isinstance(value, list | dict | onnx.SequenceProto):
        return None
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind in "UT" else array


def is_random(graph: GraphProto) -> bool:
    """Tell whether a graph, or one within it, draws at random."""
    within = (attribute.g for node in graph.node for attribute in node.attribute)
    return any(node.op_type in RANDOM for node in graph.node) or any(
        is_random(inner) for inner in within if inner.node
    )
