"""Which models may batch: real ones, run by the real engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd.tensors import Array
from inferd_engines.engine import EngineError, EngineOptions, Signature, Tensor
from inferd_engines.onnx import open_onnx
from inferd_server.worker.batching import claims_batch, find_batching
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests import models
from tests.fakes.engine import DOUBLING, FakeEngine, double

FLOATS = ("batch", 4)
ZERO_AXIS = numpy_helper.from_array(np.array([0], np.int64), "zero")


def one_node(
    op: str, datatype: str, dims: models.Dims, weights: Sequence[TensorProto] = (), **options: int
) -> ModelProto:
    """INPUT0 through one node is OUTPUT0, of the same shape."""
    node = helper.make_node(op, ["INPUT0", *(w.name for w in weights)], ["OUTPUT0"], **options)
    ends = models.tensor("INPUT0", datatype, dims), models.tensor("OUTPUT0", datatype, dims)
    return models.model([node], ends[:1], ends[1:], weights)


def sorts(datatype: str, dims: models.Dims) -> ModelProto:
    """Sorts over the first dimension."""
    nodes = [
        helper.make_node("Shape", ["INPUT0"], ["k"], start=0, end=1),
        helper.make_node("TopK", ["INPUT0", "k"], ["OUTPUT0", "order"], axis=0, largest=0),
    ]
    ends = models.tensor("INPUT0", datatype, dims), models.tensor("OUTPUT0", datatype, dims)
    return models.model(nodes, ends[:1], ends[1:])


def normalised(then: str, classes: int) -> ModelProto:
    """Less the mean over the batch, then something that makes the differences small."""
    nodes = [
        helper.make_node("ReduceMean", ["INPUT0", "zero"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["INPUT0", "mean"], ["apart"]),
        helper.make_node(then, ["apart"], ["OUTPUT0"]),
    ]
    dims = ("batch", classes)
    ends = models.tensor("INPUT0", "FP32", dims), models.tensor("OUTPUT0", "FP32", dims)
    return models.model(nodes, ends[:1], ends[1:], [ZERO_AXIS])


def mixes_after_layer_norm() -> ModelProto:
    """Centres each row over a free dimension, then the rows: nothing is left of size 1."""
    one = numpy_helper.from_array(np.array([1], np.int64), "one")
    nodes: list[NodeProto] = [
        helper.make_node("ReduceMean", ["INPUT0", "one"], ["inner"], keepdims=1),
        helper.make_node("Sub", ["INPUT0", "inner"], ["centred"]),
        helper.make_node("ReduceMax", ["centred", "zero"], ["outer"], keepdims=1),
        helper.make_node("Sub", ["centred", "outer"], ["OUTPUT0"]),
    ]
    dims = ("batch", "sequence")
    ends = models.tensor("INPUT0", "FP32", dims), models.tensor("OUTPUT0", "FP32", dims)
    return models.model(nodes, ends[:1], ends[1:], [ZERO_AXIS, one])


def table(size: int) -> ModelProto:
    """INPUT0 INT64 [batch, length] looks up rows of a table of this size."""
    rows = np.arange(size * 3, dtype=np.float32).reshape(size, 3)
    node = helper.make_node("Gather", ["table", "INPUT0"], ["OUTPUT0"])
    return models.model(
        [node],
        [models.tensor("INPUT0", "INT64", ("batch", "length"))],
        [models.tensor("OUTPUT0", "FP32", ("batch", "length", 3))],
        [numpy_helper.from_array(rows, "table")],
    )


def pool(kernel: int) -> ModelProto:
    """INPUT0 FP32 [batch, 1, length] through a pool that needs at least `kernel` elements."""
    node = helper.make_node("MaxPool", ["INPUT0"], ["OUTPUT0"], kernel_shape=[kernel])
    return models.model(
        [node],
        [models.tensor("INPUT0", "FP32", ("batch", 1, "length"))],
        [models.tensor("OUTPUT0", "FP32", ("batch", 1, "pooled"))],
    )


def batch_product() -> ModelProto:
    """INPUT0 times the transposed INPUT1, [batch, 4] both, is OUTPUT0 [batch, other]."""
    nodes = [
        helper.make_node("Transpose", ["INPUT1"], ["turned"]),
        helper.make_node("MatMul", ["INPUT0", "turned"], ["OUTPUT0"]),
    ]
    inputs = [models.tensor(name, "FP32", FLOATS) for name in ("INPUT0", "INPUT1")]
    return models.model(nodes, inputs, [models.tensor("OUTPUT0", "FP32", ("batch", "other"))])


def cumulated(datatype: str, dims: models.Dims) -> ModelProto:
    axis = numpy_helper.from_array(np.array(0, np.int64), "axis")
    return one_node("CumSum", datatype, dims, [axis])


MIXING: Mapping[str, Callable[[], ModelProto]] = {
    "mean": models.mixes_rows,
    "softmax over the batch": lambda: one_node("Softmax", "FP32", FLOATS, axis=0),
    "softmax over the batch, one column": lambda: one_node("Softmax", "FP32", ("b", 1), axis=0),
    "running sum": lambda: cumulated("FP32", FLOATS),
    "running sum of single integers": lambda: cumulated("INT32", ("batch", 1)),
    "running sum of bare integers": lambda: cumulated("INT64", ("batch",)),
    "sort": lambda: sorts("FP32", FLOATS),
    "sort of single numbers": lambda: sorts("FP32", ("batch", 1)),
    "sort of single integers": lambda: sorts("INT64", ("batch", 1)),
    "hidden in a thousand small probabilities": lambda: normalised("Softmax", 1000),
    "hidden where a dimension is 1": mixes_after_layer_norm,
    "rows against rows": batch_product,
}
INDEPENDENT: Mapping[str, Callable[[], ModelProto]] = {
    "two inputs": models.add_sub,
    "free dimensions": models.free_dims,
    "text": models.strings,
    "scale": lambda: models.scale(3.0),
    "reduction of each row": lambda: models.big(1000),
    "softmax over classes": lambda: one_node("Softmax", "FP32", ("batch", 1000), axis=1),
    "running sum within rows": lambda: one_node(
        "CumSum", "FP32", FLOATS, [numpy_helper.from_array(np.array(1, np.int64), "axis")]
    ),
    "a table of two": lambda: table(2),
    "a table of many": lambda: table(100),
    "needs more than 16": lambda: pool(17),
    "needs more than 64": lambda: pool(100),
    "booleans": lambda: models.identity("BOOL"),
    "half precision": lambda: models.identity("FP16", "FP64", "UINT8", "INT8"),
    "bfloat16": lambda: models.identity("BF16"),
    "no other dimension": lambda: models.identity("FP32", dims=("batch",)),
}


def opened(proto: ModelProto, folder: Path) -> Callable[[int | None], tuple[int, str]]:
    engine = open_onnx(models.save(proto, folder / "model.onnx"), EngineOptions(threads=1))

    def find(asked: int | None) -> tuple[int, str]:
        batching = find_batching(engine, asked, 32)
        return batching.max_batch_size, batching.reason

    return find


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_rows_does_not_batch(name: str, tmp_path: Path) -> None:
    find = opened(MIXING[name](), tmp_path)
    size, reason = find(None)
    assert size == 0
    assert "rows" in reason
    with pytest.raises(EngineError, match=r"max_batch_size is 8, and .*rows"):
        find(8)
    assert find(0)[0] == 0


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_model_of_independent_rows_batches(name: str, tmp_path: Path) -> None:
    find = opened(INDEPENDENT[name](), tmp_path)
    assert find(None)[0] == 32
    assert find(8)[0] == 8
    assert find(0) == (0, "max_batch_size is 0 in model.yaml")


def test_a_model_without_a_free_first_dimension_does_not_batch(tmp_path: Path) -> None:
    find = opened(models.no_batch(), tmp_path)
    assert find(None)[0] == 0
    with pytest.raises(EngineError, match="max_batch_size is 4, and not all inputs"):
        find(4)


def test_a_model_that_takes_no_size_tried_does_not_batch(tmp_path: Path) -> None:
    size, reason = opened(pool(300), tmp_path)(None)
    assert size == 0
    assert reason.startswith("rows could not be tried together: ")


def tensor(*shape: int | None, axes: tuple[str, ...] = ()) -> Tensor:
    return Tensor("T", np.dtype(np.float32), shape, axes)


@pytest.mark.parametrize(
    ("inputs", "outputs", "claims"),
    [
        ([tensor(None, 4)], [tensor(None)], True),
        ([tensor(None, 4)], [tensor(1, 4)], False),
        ([tensor(None), tensor(3)], [tensor(None)], False),
        ([tensor()], [tensor(None)], False),
        ([], [tensor(None)], False),
        ([tensor(None, axes=("batch",))], [tensor(None, axes=("batch",))], True),
        ([tensor(None, axes=("batch",))], [tensor(None, axes=("",))], True),
        ([tensor(None, axes=("batch",))], [tensor(None, axes=("words",))], False),
    ],
)
def test_a_batch_is_a_free_first_dimension_of_one_name(
    inputs: list[Tensor], outputs: list[Tensor], claims: bool
) -> None:
    assert claims_batch(Signature(tuple(inputs), tuple(outputs))) is claims


def test_a_fatal_error_while_trying_is_not_taken_for_an_answer() -> None:
    engine = FakeEngine()
    engine.fail(EngineError("the device is gone", fatal=True))
    with pytest.raises(EngineError, match="the device is gone"):
        find_batching(engine, None, 32)


def test_rounding_is_no_mixing() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(inputs["INPUT0"])
        return {"OUTPUT0": inputs["INPUT0"] * np.float32(1 + 1e-4 * rows)}

    assert find_batching(FakeEngine(DOUBLING, compute), None, 32).max_batch_size == 32


def test_an_outlier_hides_no_mixing() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        mixed = inputs["INPUT0"] - inputs["INPUT0"].mean(axis=0)
        mixed[:, 0] = -1e9
        return {"OUTPUT0": mixed}

    assert find_batching(FakeEngine(DOUBLING, compute), None, 32).max_batch_size == 0


def test_class_numbers_must_be_the_same() -> None:
    signature = Signature(
        DOUBLING.inputs, (Tensor("OUTPUT0", np.dtype(np.int64), (None,), ("batch",)),)
    )

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(inputs["INPUT0"])
        # 1000 and 1001 are close as numbers, and different classes.
        return {"OUTPUT0": np.full(rows, 1000 + (rows > 1), np.int64)}

    assert find_batching(FakeEngine(signature, compute), None, 32).max_batch_size == 0


def test_few_whole_numbers_may_be_rounded_the_other_way() -> None:
    signature = Signature(
        DOUBLING.inputs, (Tensor("OUTPUT0", np.dtype(np.uint8), (None, 1000), ("batch", "")),)
    )

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        pixels = np.zeros((len(inputs["INPUT0"]), 1000), np.uint8)
        pixels[0, 0] = len(pixels)
        return {"OUTPUT0": pixels}

    assert find_batching(FakeEngine(signature, compute), None, 32).max_batch_size == 32


def test_rows_of_no_number_agree() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": np.full_like(double(inputs)["OUTPUT0"], np.nan)}

    assert find_batching(FakeEngine(DOUBLING, compute), None, 32).max_batch_size == 32


def test_the_identity_of_the_real_engine_does_not_hand_out_its_input(tmp_path: Path) -> None:
    # A slot is reused as soon as its answer is made: outputs must be memory of their own.
    path = models.save(models.identity("FP32", "FP64"), tmp_path / "model.onnx")
    engine = open_onnx(path, EngineOptions(threads=1))
    given = {"INPUT0": np.ones((2, 4), np.float32), "INPUT1": np.ones((2, 4), np.float64)}
    outputs = engine.run(given, {}, 2)
    for output in outputs.values():
        assert not any(np.shares_memory(output, array) for array in given.values())


def test_the_models_of_these_tests_are_valid() -> None:
    for make in (*MIXING.values(), *INDEPENDENT.values()):
        onnx.checker.check_model(make(), full_check=True)
