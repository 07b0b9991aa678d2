"""Small ONNX models whose rows depend on each other, in the ways that real exports do.

Each has a batch dimension by its shapes, and looks right as long as every caller is alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from tests.models import IR_VERSION, OPSET, Dims, model, tensor

FLOATS = ("batch", 4)
IDS = ("batch", "length")


def weight(name: str, value: Any, dtype: Any = np.float32) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def built(
    nodes: Sequence[tuple[str, str, str] | tuple[str, str, str, Mapping[str, Any]]],
    *weights: TensorProto,
    dims: Dims = FLOATS,
    given: str = "FP32",
    answer: tuple[str, Dims] = ("FP32", FLOATS),
) -> ModelProto:
    """X goes in, Y comes out; a node is its operator, its inputs and its outputs, by spaces."""
    made: list[NodeProto] = []
    for operator, inputs, outputs, *options in nodes:
        attributes: Mapping[str, Any] = options[0] if options else {}
        # "-" stands for an input that is left out.
        names = ["" if name == "-" else name for name in inputs.split()]
        made.append(
            helper.make_node(
                operator, names, outputs.split(), name=outputs.split()[0], **attributes
            )
        )
    ends = [tensor("X", given, dims)], [tensor("Y", *answer)]
    return model(made, *ends, list(weights))


ZERO, ONE = weight("zero", [0], np.int64), weight("one", [1], np.int64)
FIRST = weight("first", 0, np.int64)
ROWS = ("Shape", "X", "count", {"start": 0, "end": 1})


def scores_beside_pixels() -> ModelProto:
    """A softmax over the batch in the last column, beside boxes in pixels."""
    return built(
        [
            ("Mul", "X pixels", "boxes"),
            ("Slice", "X zero one one", "score"),
            ("Softmax", "score", "shared", {"axis": 0}),
            ("Concat", "boxes shared", "Y", {"axis": 1}),
        ],
        ZERO, ONE, weight("pixels", 640),
        answer=("FP32", ("batch", 5)),
    )  # fmt: skip


def numbered_beside_pixels() -> ModelProto:
    """The number of the row in its batch, beside boxes in pixels: what detectors' exports write."""
    return built(
        [
            ROWS,
            ("Squeeze", "count", "rows"),
            ("Range", "first rows step", "numbers"),
            ("Cast", "numbers", "floats", {"to": TensorProto.FLOAT}),
            ("Unsqueeze", "floats one", "column"),
            ("Mul", "X pixels", "boxes"),
            ("Concat", "column boxes", "Y", {"axis": 1}),
        ],
        ONE, FIRST, weight("step", 1, np.int64), weight("pixels", 640),
        answer=("FP32", ("batch", 5)),
    )  # fmt: skip


def numbered_beside_order() -> ModelProto:
    """The number of the row, beside the order of its elements: whole numbers all of them."""
    return built(
        [
            ROWS,
            ("Squeeze", "count", "rows"),
            ("Range", "first rows step", "numbers"),
            ("Unsqueeze", "numbers one", "column"),
            ("TopK", "X four", "sorted order", {"axis": 1}),
            ("Concat", "column order", "Y", {"axis": 1}),
        ],
        ONE, FIRST, weight("step", 1, np.int64), weight("four", [4], np.int64),
        answer=("INT64", ("batch", 5)),
    )  # fmt: skip


def stamped_mask() -> ModelProto:
    """A mask of 1000 pixels, the first one stamped with the number of rows that are positive."""
    return built(
        [
            ("Greater", "X nothing", "mask"),
            ("Cast", "mask", "pixels", {"to": TensorProto.INT32}),
            ("Slice", "pixels zero one one", "corner"),
            ("ReduceSum", "corner zero", "sum", {"keepdims": 1}),
            ("Mul", "corner nought", "none"),
            ("Add", "none sum", "stamp"),
            ("Slice", "pixels one end one", "rest"),
            ("Concat", "stamp rest", "Y", {"axis": 1}),
        ],
        ZERO, ONE, weight("nothing", 0), weight("end", [1000], np.int64),
        weight("nought", 0, np.int32),
        dims=("batch", 1000), answer=("INT32", ("batch", 1000)),
    )  # fmt: skip


def longest_length() -> ModelProto:
    """The length of each row, less than the longest of all: as whole numbers."""
    return built(
        [
            ("Cast", "X", "wide", {"to": TensorProto.INT64}),
            ("ReduceMax", "wide zero", "longest", {"keepdims": 1}),
            ("Mul", "wide nought", "none"),
            ("Add", "none longest", "Y"),
        ],
        ZERO, weight("nought", 0, np.int64),
        given="INT32", dims=("batch", 4), answer=("INT64", FLOATS),
    )  # fmt: skip


def leak(share: float) -> ModelProto:
    """X and a share of its mean over the batch."""
    return built(
        [
            ("ReduceMean", "X zero", "mean", {"keepdims": 1}),
            ("Mul", "mean share", "part"),
            ("Add", "X part", "Y"),
        ],
        ZERO,
        weight("share", share),
    )


def test_time_norm() -> ModelProto:
    """Batch normalisation that was left in training mode."""
    return built(
        [("BatchNormalization", "X scale shift mean var", "Y m v", {"training_mode": 1})],
        *(weight(name, np.full(4, value)) for name, value in (("scale", 1), ("shift", 0))),
        *(weight(name, np.full(4, value)) for name, value in (("mean", 0), ("var", 1))),
    )


def scaled_if_large() -> ModelProto:
    """Pixels are divided by 255 if any of them is above 1: for all rows at once."""
    return built(
        [
            ("ReduceMax", "X", "largest", {"keepdims": 0}),
            ("Greater", "largest one_pixel", "large"),
            ("Div", "X byte", "small"),
            ("Where", "large small X", "Y"),
        ],
        weight("one_pixel", 1),
        weight("byte", 255),
    )


def zeros_beside_nan() -> ModelProto:
    """Everything is 0 as soon as one element is NaN."""
    return built(
        [
            ("IsNaN", "X", "flags"),
            ("Cast", "flags", "numbers", {"to": TensorProto.FLOAT}),
            ("ReduceMax", "numbers", "any", {"keepdims": 0}),
            ("Cast", "any", "found", {"to": TensorProto.BOOL}),
            ("Mul", "X two", "twice"),
            ("Where", "found nothing twice", "Y"),
        ],
        weight("two", 2),
        weight("nothing", 0),
    )


def cut_to_the_longest(padding: int) -> ModelProto:
    """Ids without the columns that only hold padding: as wide as the longest row."""
    return built(
        [
            ("Equal", "X padding", "padded"),
            ("Not", "padded", "real"),
            ("Cast", "real", "ones", {"to": TensorProto.INT64}),
            ("ReduceSum", "ones one", "lengths", {"keepdims": 0}),
            ("ReduceMax", "lengths zero", "longest", {"keepdims": 1}),
            ("Slice", "X zero longest one", "Y"),
        ],
        ZERO, ONE, weight("padding", padding, np.int64),
        given="INT64", dims=IDS, answer=("INT64", ("batch", "kept")),
    )  # fmt: skip


def capacity(room: int) -> ModelProto:
    """An expert that takes so many rows with a positive first element, and drops later ones."""
    return built(
        [
            ("Slice", "X zero one one", "gate"),
            ("Greater", "gate nothing", "chosen"),
            ("Cast", "chosen", "ones", {"to": TensorProto.INT64}),
            ("CumSum", "ones axis", "place"),
            ("LessOrEqual", "place room", "fits"),
            ("Where", "fits X nothing", "Y"),
        ],
        ZERO, ONE, weight("nothing", 0), weight("axis", 0, np.int64),
        weight("room", room, np.int64),
    )  # fmt: skip


def shared_table() -> ModelProto:
    """Rows that write into one table by their ids, and read it again: equal ids meet."""
    return built(
        [
            ("Mod", "X size", "ids"),
            ("Slice", "X one end one", "values"),
            ("Slice", "ids zero one one", "keys"),
            ("ScatterND", "table keys values", "written"),
            ("GatherND", "written keys", "Y"),
        ],
        ZERO, ONE, weight("size", 7, np.int64), weight("end", [2], np.int64),
        weight("table", np.zeros((7, 1)), np.int64),
        given="INT64", dims=("batch", 2), answer=("INT64", ("batch", 1)),
    )  # fmt: skip


def dynamically_quantised() -> ModelProto:
    """A layer as `quantize_dynamic` writes it: one scale for the whole batch."""
    return built(
        [
            ("DynamicQuantizeLinear", "X", "bytes scale point"),
            ("MatMulInteger", "bytes weights point", "sums"),
            ("Cast", "sums", "floats", {"to": TensorProto.FLOAT}),
            ("Mul", "floats scale", "Y"),
        ],
        numpy_helper.from_array(np.arange(16, dtype=np.uint8).reshape(4, 4), "weights"),
    )


def emitted_twice() -> ModelProto:
    """Each row once if it is above -10, and once more if it is above 10."""
    return built(
        [
            ("Greater", "X low", "some"),
            ("Greater", "X high", "more"),
            ("Squeeze", "some one", "some_flat"),
            ("Squeeze", "more one", "more_flat"),
            ("Compress", "X some_flat", "once", {"axis": 0}),
            ("Compress", "X more_flat", "again", {"axis": 0}),
            ("Concat", "once again", "Y", {"axis": 0}),
        ],
        ONE, weight("low", -10), weight("high", 10),
        dims=("batch", 1), answer=("FP32", ("rows", 1)),
    )  # fmt: skip


def split_words() -> ModelProto:
    """Words of each text, as many columns as the longest text has: StringSplit on ['N']."""
    nodes = [helper.make_node("StringSplit", ["X"], ["Y", "counts"], name="Y", delimiter=" ")]
    return model(nodes, [tensor("X", "BYTES", ("N",))], [tensor("Y", "BYTES", ("N", "words"))])


def without_stop_words() -> ModelProto:
    """Text without some words: a StringNormalizer drops their rows."""
    nodes = [
        helper.make_node(
            "StringNormalizer", ["X"], ["Y"], name="Y", stopwords=["the", "a"],
            is_case_sensitive=0, case_change_action="LOWER", locale="C",
        )
    ]  # fmt: skip
    return model(nodes, [tensor("X", "BYTES", ("N",))], [tensor("Y", "BYTES", ("rows",))])


def dropout() -> ModelProto:
    """Dropout that was left on."""
    return built(
        [("Dropout", "X ratio training", "Y")],
        weight("ratio", 0.5),
        weight("training", True, np.bool_),
    )


def sampled() -> ModelProto:
    """X and noise, as a variational autoencoder has."""
    return built([("RandomNormalLike", "X", "noise"), ("Add", "X noise", "Y")])


MIXING: Mapping[str, Callable[[], ModelProto]] = {
    "a softmax beside pixels": scores_beside_pixels,
    "rows numbered beside pixels": numbered_beside_pixels,
    "rows numbered beside an order": numbered_beside_order,
    "a mask with one stamped pixel": stamped_mask,
    "the longest length": longest_length,
    "a leak of a hundredth": lambda: leak(0.01),
    "a leak of a hundred-thousandth": lambda: leak(1e-5),
    "batch norm in training mode": test_time_norm,
    "scaled if any is large": scaled_if_large,
    "zeros beside NaN": zeros_beside_nan,
    "cut to the longest, padding 50": lambda: cut_to_the_longest(50),
    "cut to the longest, padding 199": lambda: cut_to_the_longest(199),
    "cut to the longest, padding 30000": lambda: cut_to_the_longest(30000),
    "an expert with room for 4": lambda: capacity(4),
    "an expert with room for 16": lambda: capacity(16),
    "a table with equal ids": shared_table,
    "dynamically quantised": dynamically_quantised,
    "rows emitted twice or never": emitted_twice,
    "words of the longest text": split_words,
    "stop words": without_stop_words,
}
"""By what mixes."""
RANDOM: Mapping[str, Callable[[], ModelProto]] = {"dropout": dropout, "sampling": sampled}


def label_of_one_row() -> ModelProto:
    """A label that is declared as [1] and has one element for each row, as LightGBM's."""
    nodes = [helper.make_node("ArgMax", ["X"], ["Y"], axis=1, keepdims=0)]
    graph = helper.make_graph(
        nodes, "test", [tensor("X", "FP32", ("N", 4))], [tensor("Y", "INT64", (1,))]
    )
    # Not checked: that would find out what the exporter did not.
    return helper.make_model(
        graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)]
    )


def other_name() -> ModelProto:
    """A first dimension that has another name in the output, as dynamo's s77 and s22."""
    return built([("Relu", "X", "Y")], dims=("s77", 4), answer=("FP32", ("s22", 4)))


def two_towers() -> ModelProto:
    """Users and items, each with a layer of their own and a dimension of their own name."""
    nodes = [
        helper.make_node("MatMul", ["users", "w"], ["user"]),
        helper.make_node("MatMul", ["items", "w"], ["item"]),
    ]
    return model(
        nodes,
        [tensor("users", "FP32", ("n", 4)), tensor("items", "FP32", ("m", 4))],
        [tensor("user", "FP32", ("n", 2)), tensor("item", "FP32", ("m", 2))],
        [weight("w", np.ones((4, 2)))],
    )


def merged_towers() -> ModelProto:
    """Two inputs of unlike names, added element by element."""
    return model(
        [helper.make_node("Add", ["A", "B"], ["Y"])],
        [tensor("A", "FP32", ("unk_a", 4)), tensor("B", "FP32", ("unk_b", 4))],
        [tensor("Y", "FP32", ("unk_c", 4))],
    )


def known_words() -> ModelProto:
    """A OneHotEncoder on text, which fails on a word that it does not know."""
    node = helper.make_node(
        "OneHotEncoder", ["X"], ["Y"], domain="ai.onnx.ml", zeros=0,
        cats_strings=["red", "green", "blue"],
    )  # fmt: skip
    return with_ml([node], [tensor("X", "BYTES", ("N", 1))], [tensor("Y", "FP32", ("N", 1, 3))])


def known_columns() -> ModelProto:
    """Two columns of text, each with words of its own."""
    nodes = []
    for index, words in enumerate((["red", "green"], ["small", "large", "huge"])):
        nodes += [
            helper.make_node(
                "ArrayFeatureExtractor", ["X", f"i{index}"], [f"c{index}"], domain="ai.onnx.ml"
            ),
            helper.make_node(
                "OneHotEncoder", [f"c{index}"], [f"h{index}"], domain="ai.onnx.ml", zeros=0,
                cats_strings=words,
            ),
        ]  # fmt: skip
    nodes.append(helper.make_node("Concat", ["h0", "h1"], ["Y"], axis=2))
    columns = [weight(f"i{index}", [index], np.int64) for index in range(2)]
    ends = [tensor("X", "BYTES", ("N", 2))], [tensor("Y", "FP32", ("N", 1, 5))]
    return with_ml(nodes, *ends, columns)


def known_gathered() -> ModelProto:
    """A column of text by Gather, as scikit-learn's converter writes it."""
    nodes = [
        helper.make_node("Gather", ["X", "i"], ["c"], axis=1),
        helper.make_node(
            "OneHotEncoder",
            ["c"],
            ["Y"],
            domain="ai.onnx.ml",
            zeros=0,
            cats_strings=["red", "green"],
        ),
    ]
    ends = [tensor("X", "BYTES", ("N", 2))], [tensor("Y", "FP32", ("N", 1, 2))]
    return with_ml(nodes, *ends, [weight("i", [1], np.int64)])


def with_ml(
    nodes: Sequence[NodeProto], inputs: Any, outputs: Any, weights: Sequence[TensorProto] = ()
) -> ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights)
    sets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, ir_version=IR_VERSION, opset_imports=sets)


def one_id() -> ModelProto:
    """A table of a single row."""
    return built(
        [("Gather", "table X", "Y")],
        weight("table", [[1, 2, 3]]),
        given="INT64", dims=("batch",), answer=("FP32", ("batch", 3)),
    )  # fmt: skip


def unlike_tables() -> ModelProto:
    """Ids of a large table, and ids of one with two rows: no one range fits both well."""
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["a"]),
        helper.make_node("Gather", ["types", "kinds"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["Y"]),
    ]
    weights = [weight("words", np.arange(900).reshape(300, 3)), weight("types", np.ones((2, 3)))]
    return model(
        nodes,
        [tensor("ids", "INT64", IDS), tensor("kinds", "INT64", IDS)],
        [tensor("Y", "FP32", ("batch", "length", 3))],
        weights,
    )


def thirty_features() -> ModelProto:
    """A layer of 30 features whose exporter declared them free."""
    return built(
        [("MatMul", "X w", "Y")],
        weight("w", np.ones((30, 2))),
        dims=("batch", "features"), answer=("FP32", ("batch", 2)),
    )  # fmt: skip


INDEPENDENT: Mapping[str, Callable[[], ModelProto]] = {
    "a label declared as one row": label_of_one_row,
    "another name in the output": other_name,
    "two towers": two_towers,
    "towers added together": merged_towers,
    "words that it knows": known_words,
    "columns of words": known_columns,
    "a column by its number": known_gathered,
    "a table of one row": one_id,
    "tables of unlike sizes": unlike_tables,
    "thirty features": thirty_features,
}
"""By what a trial has to fit."""
