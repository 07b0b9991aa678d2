"""Small ONNX models, built in memory, for every test that needs a real one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

Dims: TypeAlias = Sequence[int | str | None]

IR_VERSION = 10
OPSET = 21

# The element type of ONNX for each datatype of the Open Inference Protocol.
ELEMENT_TYPES: Mapping[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}


def tensor(name: str, datatype: str, dims: Dims) -> ValueInfoProto:
    """Declare an input or output; a `str` dimension is free and named, None free and unnamed."""
    return helper.make_tensor_value_info(name, ELEMENT_TYPES[datatype], dims)


def model(
    nodes: Sequence[NodeProto],
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[ValueInfoProto],
    weights: Sequence[TensorProto] = (),
) -> ModelProto:
    """Put a checked model together, with an IR version and opset that ONNX Runtime loads."""
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights)
    proto = helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )
    onnx.checker.check_model(proto)
    return proto


def identity(*datatypes: str, dims: Dims = ("batch", 4)) -> ModelProto:
    """INPUT0, INPUT1, ... of these datatypes come back as OUTPUT0, OUTPUT1, ..."""
    names = [(f"INPUT{index}", f"OUTPUT{index}") for index in range(len(datatypes))]
    nodes = [helper.make_node("Identity", [source], [target]) for source, target in names]
    pairs = list(zip(names, datatypes, strict=True))
    return model(
        nodes,
        [tensor(source, datatype, dims) for (source, _), datatype in pairs],
        [tensor(target, datatype, dims) for (_, target), datatype in pairs],
    )


def add_sub() -> ModelProto:
    """INPUT0 and INPUT1, INT32 [batch, 16]: OUTPUT0 is their sum, OUTPUT1 their difference.

    The model `simple` of Triton's examples.
    """
    dims = ("batch", 16)
    nodes = [
        helper.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]),
        helper.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"]),
    ]
    return model(
        nodes,
        [tensor(name, "INT32", dims) for name in ("INPUT0", "INPUT1")],
        [tensor(name, "INT32", dims) for name in ("OUTPUT0", "OUTPUT1")],
    )


def slow_add(times: int) -> ModelProto:
    """As `add_sub` with OUTPUT0 alone, after so many rounds of nothing, 0.5 us each."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Identity", ["state"], ["next_state"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.INT32, None),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.INT32, None),
        ],
    )
    dims = ("batch", 16)
    rounds = numpy_helper.from_array(np.array(times, np.int64), "times")
    nodes = [
        helper.make_node("Loop", ["times", "", "INPUT0"], ["same"], body=body),
        helper.make_node("Add", ["same", "INPUT1"], ["OUTPUT0"]),
    ]
    given = [tensor(name, "INT32", dims) for name in ("INPUT0", "INPUT1")]
    return model(nodes, given, [tensor("OUTPUT0", "INT32", dims)], [rounds])


def rounds() -> ModelProto:
    """Without a batch dimension: as many rounds of nothing as ROUNDS says, 0.5 us each."""
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"next_{name}"]) for name in ("go_on", "state")],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.INT64, None),
        ],
        [
            helper.make_tensor_value_info("next_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.INT64, None),
        ],
    )
    nodes = [helper.make_node("Loop", ["ROUNDS", "", "ROUNDS"], ["OUTPUT0"], body=body)]
    return model(nodes, [tensor("ROUNDS", "INT64", (1,))], [tensor("OUTPUT0", "INT64", (1,))])


def rounds_by_width(times: int) -> ModelProto:
    """INPUT0 FP32 [batch, width] comes back after so many rounds of nothing for each column."""
    body = helper.make_graph(
        [helper.make_node("Identity", [name], [f"next_{name}"]) for name in ("go_on", "state")],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("next_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next_state", TensorProto.FLOAT, None),
        ],
    )
    each = numpy_helper.from_array(np.array([times], np.int64), "each")
    nodes = [
        helper.make_node("Shape", ["INPUT0"], ["width"], start=1, end=2),
        helper.make_node("Mul", ["width", "each"], ["times"]),
        helper.make_node("Loop", ["times", "", "INPUT0"], ["OUTPUT0"], body=body),
    ]
    dims = ("batch", "width")
    return model(nodes, [tensor("INPUT0", "FP32", dims)], [tensor("OUTPUT0", "FP32", dims)], [each])


def strings() -> ModelProto:
    """INPUT0 BYTES [batch, 2] comes back as OUTPUT0 BYTES [batch, 2], unchanged."""
    return identity("BYTES", dims=("batch", 2))


def joined() -> ModelProto:
    """INPUT0 BYTES [batch, 2], each element twice in a row, is OUTPUT0 BYTES: text is read."""
    dims = ("batch", 2)
    node = helper.make_node("StringConcat", ["INPUT0", "INPUT0"], ["OUTPUT0"])
    return model([node], [tensor("INPUT0", "BYTES", dims)], [tensor("OUTPUT0", "BYTES", dims)])


def no_batch() -> ModelProto:
    """INPUT0 FP32 [3, 4] times ones [4, 2] is OUTPUT0 FP32 [3, 2]: no free dimension."""
    weight = numpy_helper.from_array(np.ones((4, 2), dtype=np.float32), "weight")
    node = helper.make_node("MatMul", ["INPUT0", "weight"], ["OUTPUT0"])
    inputs, outputs = [tensor("INPUT0", "FP32", (3, 4))], [tensor("OUTPUT0", "FP32", (3, 2))]
    return model([node], inputs, outputs, [weight])


def free_dims() -> ModelProto:
    """INPUT0 FP32 [batch, sequence] comes back doubled as OUTPUT0 FP32 [batch, sequence]."""
    dims = ("batch", "sequence")
    node = helper.make_node("Add", ["INPUT0", "INPUT0"], ["OUTPUT0"])
    return model([node], [tensor("INPUT0", "FP32", dims)], [tensor("OUTPUT0", "FP32", dims)])


def mixes_rows() -> ModelProto:
    """INPUT0 FP32 [batch, 4] less its mean over the batch is OUTPUT0 FP32 [batch, 4].

    The first dimension looks like a batch, and rows influence each other: batching requests
    together changes their answers.
    """
    dims = ("batch", 4)
    axes = numpy_helper.from_array(np.array([0], dtype=np.int64), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["INPUT0", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["INPUT0", "mean"], ["OUTPUT0"]),
    ]
    inputs, outputs = [tensor("INPUT0", "FP32", dims)], [tensor("OUTPUT0", "FP32", dims)]
    return model(nodes, inputs, outputs, [axes])


def scale(factor: float) -> ModelProto:
    """INPUT0 FP32 [batch, 4] times `factor` is OUTPUT0 FP32 [batch, 4]: versions that differ."""
    dims = ("batch", 4)
    weight = numpy_helper.from_array(np.array(factor, dtype=np.float32), "factor")
    node = helper.make_node("Mul", ["INPUT0", "factor"], ["OUTPUT0"])
    inputs, outputs = [tensor("INPUT0", "FP32", dims)], [tensor("OUTPUT0", "FP32", dims)]
    return model([node], inputs, outputs, [weight])


def summing(datatype: str = "FP32", dims: Dims = ("batch", 4)) -> ModelProto:
    """OUTPUT0 is the sum of all INPUT0 of a sequence, with SUMMING as model.yaml."""
    nodes = [
        helper.make_node("Add", ["INPUT0", "SUM_IN"], ["OUTPUT0"]),
        helper.make_node("Identity", ["OUTPUT0"], ["SUM_OUT"]),
    ]
    return model(
        nodes,
        [tensor(name, datatype, dims) for name in ("INPUT0", "SUM_IN")],
        [tensor(name, datatype, dims) for name in ("OUTPUT0", "SUM_OUT")],
    )


SUMMING = "sequence:\n  states: [{input: SUM_IN, output: SUM_OUT}]\n  max_sequences: 64\n"


def counting(datatype: str) -> ModelProto:
    """OUTPUT0 FP32 [batch, 1] is how many elements INPUT0 [batch, n] had in a sequence so far."""
    one = numpy_helper.from_array(np.array([[1.0]], dtype=np.float32), "one")
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    nodes = [
        helper.make_node("Equal", ["INPUT0", "INPUT0"], ["SAME"]),
        helper.make_node("Cast", ["SAME"], ["ONES"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["ONES", "axes"], ["COUNT"], keepdims=1),
        helper.make_node("Mul", ["COUNT", "one"], ["MORE"]),
        helper.make_node("Add", ["MORE", "SUM_IN"], ["OUTPUT0"]),
        helper.make_node("Identity", ["OUTPUT0"], ["SUM_OUT"]),
    ]
    inputs = [tensor("INPUT0", datatype, ("batch", "n")), tensor("SUM_IN", "FP32", ("batch", 1))]
    outputs = [tensor(name, "FP32", ("batch", 1)) for name in ("OUTPUT0", "SUM_OUT")]
    return model(nodes, inputs, outputs, [one, axes])


def image_classes() -> ModelProto:
    """The mean of each channel of INPUT0 FP32 [batch, 3, 8, 8] is OUTPUT0 [batch, 3, 1, 1]."""
    node = helper.make_node("GlobalAveragePool", ["INPUT0"], ["OUTPUT0"])
    given = tensor("INPUT0", "FP32", ("batch", 3, 8, 8))
    return model([node], [given], [tensor("OUTPUT0", "FP32", ("batch", 3, 1, 1))])


def big(size: int) -> ModelProto:
    """The mean of each row of INPUT0 FP32 [batch, size] is OUTPUT0 FP32 [batch, 1]."""
    axes = numpy_helper.from_array(np.array([1], dtype=np.int64), "axes")
    node = helper.make_node("ReduceMean", ["INPUT0", "axes"], ["OUTPUT0"], keepdims=1)
    inputs = [tensor("INPUT0", "FP32", ("batch", size))]
    return model([node], inputs, [tensor("OUTPUT0", "FP32", ("batch", 1))], [axes])


def repository(
    root: Path,
    models: Mapping[str, ModelProto | Mapping[int, ModelProto]],
    yaml: Mapping[str, str] | None = None,
) -> Path:
    """Lay out NAME/VERSION/model.onnx (a bare model is version 1) and NAME/model.yaml.

    Args:
        root: the folder to fill; made if it is missing.
        models: by name, a model or its versions.
        yaml: by name, the text of model.yaml.

    Returns:
        `root`, which is then a model repository.
    """
    for name, versions in models.items():
        for version, proto in (
            {1: versions} if isinstance(versions, ModelProto) else versions
        ).items():
            save(proto, root / name / str(version) / "model.onnx")
    for name, text in (yaml or {}).items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "model.yaml").write_text(text, encoding="utf-8")
    return root


def save(proto: ModelProto, path: Path) -> Path:
    """Write a model file, with the folders above it, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path
