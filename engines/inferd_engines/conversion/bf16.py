"""Weights kept in BF16, which the model makes FP32 of: half the file, and the range of FP32.

What is computed stays FP32: on a processor ONNX Runtime (1.32) has Cast for BF16, which it folds
when it opens the file, and no Conv, Gemm, MatMul, Add, Relu or MaxPool.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ml_dtypes

if TYPE_CHECKING:
    from onnx import ModelProto

LEAST_DIMENSIONS = 2
"""Of what is a weight: biases and scales are small, and some operators want them as constants."""


def store_weights(model: ModelProto) -> ModelProto:
    """Return the model with each weight rounded to BF16, cast to FP32 before anything reads it."""
    from onnx import TensorProto, helper, numpy_helper

    asked = {one.name for one in model.graph.input}
    casts = []
    for weight in model.graph.initializer:
        name, small = weight.name, len(weight.dims) < LEAST_DIMENSIONS
        if weight.data_type != TensorProto.FLOAT or small or name in asked:
            continue
        rounded = numpy_helper.to_array(weight).astype(ml_dtypes.bfloat16)
        weight.CopyFrom(numpy_helper.from_array(rounded, f"{name}_bf16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model
