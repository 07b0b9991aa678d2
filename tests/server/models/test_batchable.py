"""Which models may batch: real ones, run by the real engine, and doubles that hide things."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from inferd.tensors import Array
from inferd_engines.batch_axis import Mixing, MixingNode
from inferd_engines.engine import Engine, EngineError, EngineOptions, Signature, Tensor
from inferd_engines.onnx import open_onnx
from inferd_engines.onnx_values import ModelFacts, read_facts
from inferd_server.models.batchable import Batching, batched_signature, find_batching
from inferd_server.models.row_independence import Budget, RowTrial
from inferd_server.models.row_verdict import RowVerdict
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests import mixing, models
from tests.fakes.engine import DOUBLING, FakeEngine, double

FLOATS = ("batch", 4)
NOTHING = ModelFacts()
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


MIXING = {**MIXING, **mixing.MIXING}
INDEPENDENT = {**INDEPENDENT, **mixing.INDEPENDENT}


def try_rows(engine: Engine, asked: int | None, facts: ModelFacts = NOTHING) -> Batching:
    """Decide as loading does, with a clock that stands still."""

    def trial(most: int) -> RowVerdict:
        return RowTrial(engine, facts, most, Budget(lambda: 0.0, lambda: 0, lambda: 0)).verdict()

    return find_batching(engine.signature, asked, 32, facts, trial)


def opened(proto: ModelProto, folder: Path) -> Callable[[int | None], Batching]:
    path = models.save(proto, folder / "model.onnx")
    engine, facts = open_onnx(path, EngineOptions(threads=1)), read_facts(path.read_bytes())
    return lambda asked: try_rows(engine, asked, facts)


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_rows_does_not_batch(name: str, tmp_path: Path) -> None:
    find = opened(MIXING[name](), tmp_path)
    found = find(None)
    assert found.max_batch_size == 0
    assert "rows" in found.reason
    with pytest.raises(EngineError, match=r"max_batch_size is 32, and .*rows"):
        find(32)
    assert find(0).max_batch_size == 0


@pytest.mark.parametrize("name", INDEPENDENT)
def test_a_model_of_independent_rows_batches(name: str, tmp_path: Path) -> None:
    find = opened(INDEPENDENT[name](), tmp_path)
    found = find(None)
    assert found.max_batch_size == 32, found.reason
    assert found.reason.startswith("rows kept every bit of their answers")
    assert (find(8).max_batch_size, find(8).proven) == (8, True)
    assert find(0) == Batching(0, "max_batch_size is 0 in model.yaml")


@pytest.mark.parametrize("name", mixing.RANDOM)
def test_a_model_that_answers_by_chance_is_said_to_do_so(name: str, tmp_path: Path) -> None:
    find = opened(mixing.RANDOM[name](), tmp_path)
    found = find(None)
    assert found.max_batch_size == 0
    assert found.reason.startswith("equal batches give different answers (output 'Y')")
    assert "depend on the other rows" not in found.reason
    asked = find(8)
    assert (asked.max_batch_size, asked.proven) == (8, False)
    assert asked.reason.startswith("max_batch_size is 8 in model.yaml, not proven: equal batches")


def test_a_model_without_a_free_first_dimension_does_not_batch(tmp_path: Path) -> None:
    find = opened(models.no_batch(), tmp_path)
    assert find(None).max_batch_size == 0
    fixed = r"input 'INPUT0' has shape \[3, 4\], which begins with no free dimension"
    with pytest.raises(EngineError, match=f"max_batch_size is 4, and {fixed}"):
        find(4)


def test_what_could_not_be_tried_batches_where_it_is_asked_for_and_says_why(tmp_path: Path) -> None:
    find = opened(pool(300), tmp_path)
    found = find(None)
    assert found.max_batch_size == 0
    assert found.reason.startswith("rows could not be tried together: ")
    assert "set max_batch_size: 32 in model.yaml, or name rows that the model" in found.reason
    asked = find(8)
    assert (asked.max_batch_size, asked.proven) == (8, False)
    assert "not proven: rows could not be tried together: " in asked.reason


def secret_number(datatype: str) -> ModelProto:
    """Doubles every row as soon as the largest element of all is one that nobody guesses."""
    kind = np.int64 if datatype == "INT64" else np.float32
    return mixing.built(
        [
            ("ReduceMax", "X zero", "largest", {"keepdims": 1}),
            ("Equal", "largest secret", "found"),
            ("Add", "X X", "twice"),
            ("Where", "found twice X", "Y"),
        ],
        mixing.ZERO,
        mixing.weight("secret", [123457, 123457, 123457, 123457], kind),
        given=datatype,
        answer=(datatype, FLOATS),
    )


def test_of_whole_numbers_a_node_that_mixes_rows_is_a_doubt_that_the_operator_may_overrule(
    tmp_path: Path,
) -> None:
    find = opened(secret_number("INT64"), tmp_path)
    found = find(None)
    assert found.max_batch_size == 0
    assert "node 'largest' (ReduceMax) reduces over the batch dimension" in found.reason
    asked = find(8)
    assert (asked.max_batch_size, asked.proven) == (8, False)
    assert "node 'largest'" in asked.reason


def test_what_takes_its_scale_from_all_rows_needs_no_trial() -> None:
    proven = MixingNode(
        Mixing.PROVEN, "q", "DynamicQuantizeLinear", "takes its scale from all rows", whole=False
    )
    engine = FakeEngine()
    found = try_rows(engine, None, ModelFacts(mixing=(proven,)))
    assert found.max_batch_size == 0
    assert "node 'q' (DynamicQuantizeLinear) takes its scale from all rows" in found.reason
    assert engine.batches == []


def test_as_many_rows_are_tried_as_a_batch_may_have(tmp_path: Path) -> None:
    find = opened(mixing.capacity(40), tmp_path)
    assert find(8).max_batch_size == 8
    with pytest.raises(EngineError, match=r"max_batch_size is 64, and .* in a batch of 64"):
        find(64)


def test_a_node_is_named_beside_what_the_trial_saw(tmp_path: Path) -> None:
    found = opened(mixing.scores_beside_pixels(), tmp_path)(None)
    assert "output 'Y' of a row changed beside " in found.reason
    assert "node 'shared' (Softmax) runs over the batch dimension" in found.reason


@pytest.mark.parametrize("declared", [1, 3])
def test_outputs_that_a_file_declares_wrongly_are_told_as_they_are(declared: int) -> None:
    output = Tensor("OUTPUT0", np.dtype(np.float32), (declared, 4))
    engine = FakeEngine(Signature(DOUBLING.inputs, (output,)))
    assert try_rows(engine, None).max_batch_size == 32
    assert batched_signature(engine.signature).outputs[0].shape == (None, 4)


def test_a_fatal_error_while_trying_is_not_taken_for_an_answer() -> None:
    engine = FakeEngine()
    engine.fail(EngineError("the device is gone", fatal=True))
    with pytest.raises(EngineError, match="the device is gone"):
        try_rows(engine, None)


def test_rounding_is_no_mixing() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(inputs["INPUT0"])
        return {"OUTPUT0": inputs["INPUT0"] * np.float32(1 + 1e-5 * rows)}

    assert try_rows(FakeEngine(DOUBLING, compute), None).max_batch_size == 32


def test_an_outlier_hides_no_mixing() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        mixed = inputs["INPUT0"] - inputs["INPUT0"].mean(axis=0)
        mixed[:, 0] = -1e9
        return {"OUTPUT0": mixed}

    assert try_rows(FakeEngine(DOUBLING, compute), None).max_batch_size == 0


def test_class_numbers_must_be_the_same() -> None:
    signature = Signature(
        DOUBLING.inputs, (Tensor("OUTPUT0", np.dtype(np.int64), (None,), ("batch",)),)
    )

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        rows = len(inputs["INPUT0"])
        # 1000 and 1001 are close as numbers, and different classes.
        return {"OUTPUT0": np.full(rows, 1000 + (rows > 1), np.int64)}

    assert try_rows(FakeEngine(signature, compute), None).max_batch_size == 0


def test_one_whole_number_of_a_thousand_that_differs_is_enough() -> None:
    signature = Signature(
        DOUBLING.inputs, (Tensor("OUTPUT0", np.dtype(np.uint8), (None, 1000), ("batch", "")),)
    )

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        pixels = np.zeros((len(inputs["INPUT0"]), 1000), np.uint8)
        pixels[0, 0] = len(pixels)
        return {"OUTPUT0": pixels}

    assert try_rows(FakeEngine(signature, compute), None).max_batch_size == 0


@pytest.mark.parametrize("emitted", [lambda x: x[x[:, 0] > -1e3], lambda x: x[:1], lambda x: x[0]])
def test_outputs_without_one_row_for_each_row_are_seen(emitted: Callable[[Array], Array]) -> None:
    engine = FakeEngine(DOUBLING, lambda inputs: {"OUTPUT0": emitted(inputs["INPUT0"])})
    found = try_rows(engine, None)
    assert found.max_batch_size == 0
    assert "output 'OUTPUT0' has shape" in found.reason


def test_an_engine_that_drifts_is_not_said_to_mix() -> None:
    state = [0.0]

    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        state[0] += 1
        # The first two runs agree.
        return {"OUTPUT0": inputs["INPUT0"] + np.float32(state[0] > 3)}

    assert (
        "equal batches give different answers" in try_rows(FakeEngine(compute=compute), None).reason
    )


def test_rows_of_no_number_agree() -> None:
    def compute(inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return {"OUTPUT0": np.full_like(double(inputs)["OUTPUT0"], np.nan)}

    assert try_rows(FakeEngine(DOUBLING, compute), None).max_batch_size == 32


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
        onnx.checker.check_model(make())
