"""Where the batch dimension is after an operator of ONNX, if it is still one dimension."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd_engines.onnx_graph import Constant, Node


@dataclass(frozen=True, slots=True)
class Axis:
    """The place of the batch dimension in a value that comes from the inputs; None: not known."""

    position: int | None
    rank: int | None
    whole: bool = False
    """True if the value comes from whole numbers, text or flags."""

    def normal(self, axes: Sequence[int]) -> frozenset[int]:
        """Return axes counted from the front; those that cannot be are left out."""
        if self.rank is None:
            return frozenset(axis for axis in axes if axis >= 0)
        return frozenset(axis % self.rank for axis in axes if -self.rank <= axis < self.rank)


class Follower:
    """A node, with what is known of its inputs."""

    def __init__(
        self, node: Node, axes: Mapping[str, Axis], constants: Mapping[str, Constant], opset: int
    ) -> None:
        self.operator = node.operator
        self.inputs = node.inputs
        self.outputs = node.outputs
        self.attributes = node.attributes
        self.known = axes
        self.opset = opset
        self._constants = constants

    def axis(self, index: int) -> Axis | None:
        """Return the axis of an input; None if it is missing, or does not come from the inputs."""
        return self.known.get(self.inputs[index]) if index < len(self.inputs) else None

    def constant(self, index: int) -> Constant | None:
        """Return an input that is a constant; None for others."""
        return self._constants.get(self.inputs[index]) if index < len(self.inputs) else None

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is a whole number."""
        value = self.attributes.get(name)
        return value if isinstance(value, int) else default

    def integers(self, name: str, default: Sequence[int]) -> Sequence[int]:
        """Return an attribute that is a row of whole numbers."""
        value = self.attributes.get(name)
        if not isinstance(value, tuple):
            return default
        return [one for one in value if isinstance(one, int)]

    def axes(self) -> Sequence[int] | None:
        """Return the axes that an attribute or the second input names; None: not known."""
        if len(self.inputs) > 1 and self.inputs[1]:
            constant = self.constant(1)
            return None if constant is None else ints(constant)
        return self.integers("axes", ())


def ints(constant: Constant | None) -> Sequence[int]:
    """Return the whole numbers of a constant."""
    return [one for one in constant.values if isinstance(one, int)] if constant else ()


def broadcast(node: Follower) -> Axis | None:
    """Return the axis of a result whose inputs are aligned at their last dimensions."""
    ranks: list[int] = []
    from_end: set[int] = set()
    for index in range(len(node.inputs)):
        axis, constant = node.axis(index), node.constant(index)
        if axis is not None:
            if axis.position is None or axis.rank is None:
                return None
            ranks.append(axis.rank)
            from_end.add(axis.rank - axis.position)
        elif constant is not None:
            ranks.append(len(constant.shape))
        elif node.inputs[index]:
            return None
    if len(from_end) != 1:
        return None
    return Axis(max(ranks) - from_end.pop(), max(ranks))


def transpose(node: Follower) -> Axis | None:
    """Follow a Transpose."""
    axis = node.axis(0)
    if axis is None or axis.position is None or axis.rank is None:
        return None
    order = list(node.integers("perm", range(axis.rank - 1, -1, -1)))
    return Axis(order.index(axis.position), axis.rank) if axis.position in order else None


def squeeze(node: Follower) -> Axis | None:
    """Follow a Squeeze."""
    axis, axes = node.axis(0), node.axes()
    if axis is None or axis.position is None or axis.rank is None or not axes:
        return None
    gone = axis.normal(axes)
    if axis.position in gone:
        return None
    return Axis(
        axis.position - sum(1 for one in gone if one < axis.position), axis.rank - len(gone)
    )


def unsqueeze(node: Follower) -> Axis | None:
    """Follow an Unsqueeze."""
    axis, axes = node.axis(0), node.axes()
    if axis is None or axis.position is None or axis.rank is None or not axes:
        return None
    rank = axis.rank + len(axes)
    new = sorted(one % rank for one in axes)
    old = [place for place in range(rank) if place not in new]
    return Axis(old[axis.position], rank) if axis.position < len(old) else None


def along_another(node: Follower) -> Axis | None:
    """Follow what puts together or takes apart along one axis, unless it is that of the rows."""
    axis = node.axis(0)
    axis = axis or next((a for i in range(len(node.inputs)) if (a := node.axis(i))), None)
    if axis is None or axis.position is None:
        return None
    return None if axis.position in axis.normal((node.integer("axis", 0),)) else axis


def cut(node: Follower) -> Axis | None:
    """Follow a Slice along other axes."""
    axis, starts = node.axis(0), node.constant(1)
    if axis is None or axis.position is None:
        return None
    axes: Sequence[int] = ints(node.constant(3)) or node.integers("axes", ())
    if not axes and starts is not None:
        axes = range(len(starts.values))
    return axis if axes and axis.position not in axis.normal(axes) else None


def gather(node: Follower) -> Axis | None:
    """Follow a Gather of rows' own elements, or from a table."""
    data, indices, along = node.axis(0), node.axis(1), node.integer("axis", 0)
    table, places = node.constant(0), node.constant(1)
    if data is None and table is not None and indices is not None:
        if indices.position is None or indices.rank is None or along < 0:
            return None
        return Axis(along + indices.position, indices.rank + len(table.shape) - 1)
    if data is None or places is None or data.position is None or data.rank is None:
        return None
    (axis,) = data.normal((along,)) or (data.position,)
    if axis == data.position:
        return None
    shift = len(places.shape) - 1
    return Axis(data.position + (shift if axis < data.position else 0), data.rank + shift)


def matmul(node: Follower) -> Axis | None:
    """Follow a product with a weight, or one of rows with their own."""
    left, right, weight = node.axis(0), node.axis(1), node.constant(1)
    if left is None or left.position is None or left.rank is None or left.position == left.rank - 1:
        return None
    if weight is not None:
        return left if len(weight.shape) == 2 else None
    same = right is not None and (right.position, right.rank) == (left.position, left.rank)
    return left if same and left.rank > 2 and left.position < left.rank - 2 else None


def gemm(node: Follower) -> Axis | None:
    """Follow a product of matrices with a weight."""
    left = node.axis(0)
    fits = left is not None and left.position == 0 and not node.integer("transA", 0)
    return Axis(0, 2) if fits and node.axis(1) is None and node.axis(2) is None else None


def flatten(node: Follower) -> Axis | None:
    """Follow a Flatten that leaves the first dimension alone."""
    axis = node.axis(0)
    return Axis(0, 2) if axis and axis.position == 0 and node.integer("axis", 1) == 1 else None


def reshape(node: Follower) -> Axis | None:
    """Follow a Reshape that leaves the first dimension as it is."""
    axis, shape = node.axis(0), ints(node.constant(1))
    leaves = bool(shape) and shape[0] == 0 and not node.integer("allowzero", 0)
    return Axis(0, len(shape)) if axis and axis.position == 0 and leaves else None


def spatial(node: Follower) -> Axis | None:
    """Follow what takes images, whose first dimension counts them."""
    axis = node.axis(0)
    others = any(node.axis(index) is not None for index in range(1, len(node.inputs)))
    return axis if axis and axis.position == 0 and not others else None


MERGES = frozenset(
    {
        "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum", "Mod", "And", "Or", "Xor",
        "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Where", "PRelu", "BitShift",
        "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Clip",
    }
)  # fmt: skip
"""Element by element, with inputs that are stretched to the same shape."""

KEEPS = frozenset(
    {
        "Identity", "Cast", "CastLike", "Dropout", "QuantizeLinear", "DequantizeLinear", "Not",
        "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Sigmoid", "HardSigmoid", "HardSwish",
        "Swish", "Mish", "Softplus", "Softsign", "Tanh", "ThresholdedRelu", "Abs", "Neg", "Ceil",
        "Floor", "Round", "Sign", "Sqrt", "Reciprocal", "Exp", "Log", "Erf", "Sin", "Cos", "Tan",
        "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "IsNaN", "IsInf",
        "BitwiseNot", "Softmax", "LogSoftmax", "Hardmax", "LayerNormalization", "RMSNormalization",
        "SimplifiedLayerNormalization", "BatchNormalization", "InstanceNormalization",
        "GroupNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization", "CumSum",
        "CumProd", "TopK", "Trilu", "Scaler", "Normalizer", "Imputer", "Binarizer", "StringConcat",
    }
)  # fmt: skip
"""The shape of the first input, or its number of dimensions at least."""

MOVES: Mapping[str, Callable[[Follower], Axis | None]] = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": along_another,
    "Split": along_another,
    "Slice": cut,
    "Gather": gather,
    "MatMul": matmul,
    "MatMulInteger": matmul,
    "Gemm": gemm,
    "Flatten": flatten,
    "Reshape": reshape,
    **dict.fromkeys(
        (
            "Conv", "ConvTranspose", "ConvInteger", "MaxPool", "AveragePool", "LpPool", "Pad",
            "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool", "Resize", "Upsample",
            "DepthToSpace", "SpaceToDepth",
        ),
        spatial,
    ),
}  # fmt: skip
