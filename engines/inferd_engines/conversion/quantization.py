"""A model in INT8 with Q/DQ nodes, FP16, or with weights in BF16, as near as was asked.

INT8 is static: per channel and symmetric for weights, one scale for each activation, from the
least and the largest value over the calibration rows. Biases stay FP32 in the file: TensorRT
takes no INT32 into DequantizeLinear, and ONNX Runtime quantises them itself when it opens it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from inferd_engines.conversion.bf16 import store_weights
from inferd_engines.conversion.comparing import Distance, distances
from inferd_engines.conversion.errors import ConversionFailed, Differs, Unsupported, needing
from inferd_engines.conversion.rows import Answers, Rows, answers, read_rows
from inferd_engines.conversion.sensitivity import Scan, exclusions
from inferd_engines.engine import Array, EngineError, EngineOptions
from inferd_engines.model_files import is_sealed
from inferd_engines.onnx_errors import brief
from inferd_engines.standard import open_onnx_cpu
from inferd_engines.tensorrt.precision import half

if TYPE_CHECKING:
    from onnx import ModelProto

OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Gemm", "GlobalAveragePool",
    "MatMul", "MaxPool", "Relu", "Reshape", "Resize", "Squeeze", "Transpose",
)  # fmt: skip
"""What is quantised: what has weights, and what may stand between."""
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
LEAST_OPSET = 13
"""The first with a scale for each channel, and with BF16."""
INT8, UINT8, FP16, BF16 = "int8", "uint8", "fp16", "bf16"
MAX_ERROR = 0.1
SCANNED_ROWS = 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a model is to be quantised."""

    precision: str = INT8
    """INT8, FP16 or BF16."""
    activations: str = INT8
    """INT8, which TensorRT takes too, or UINT8, with which ONNX Runtime joins more operators."""
    max_error: float = MAX_ERROR
    """The largest relative distance of an output from the original's."""


@dataclass(frozen=True, slots=True)
class Quantized:
    """What came of it."""

    content: bytes
    """Of the ONNX file."""
    excluded: Mapping[str, float]
    """Nodes that stay as they were, with the error of the model when each alone is quantised."""
    distances: Mapping[str, Distance]
    """Of each output, over the calibration rows."""
    answers: Answers
    rows: Rows


def quantize(
    model: Path, calibration: Path, wanted: Wanted, ran: Callable[[], object] = lambda: None
) -> Quantized:
    """Quantise a model, and compare it with the original on the calibration rows.

    Args:
        model: ONNX file.
        calibration: an .npz file of rows like those that it will serve.
        wanted: how.
        ran: called after each run of a model.

    Raises:
        EngineError: the file cannot be read or quantised, or the rows are not its inputs.
        OSError: there is no room for temporary files.
    """
    refuse_sealed(model)
    with closing(open_onnx_cpu(model, EngineOptions())) as engine:
        rows = read_rows(calibration, engine.signature)
        before = answers(engine, rows, ran)
    with needing("quantize"), refusing(model), tempfile.TemporaryDirectory() as folder:
        import onnx

        place = Path(folder)
        made, excluded = place / "made.onnx", dict[str, float]()
        if wanted.precision == FP16:
            half(model, made)
        elif wanted.precision == BF16:
            onnx.save(store_weights(raised(onnx.load(str(model)))), str(made))
        else:
            attempt = Attempts(model, place, rows, before, wanted, ran)
            scan = attempt.scan()
            made, excluded = attempt.made(scan.excluded), dict(scan.excluded)
        refuse_unchanged(model, made, wanted.precision)
        after = answers_of(made, rows, ran)
        content = made.read_bytes()
    found = distances(before, after)
    refuse_far(model, found, wanted.max_error)
    return Quantized(content, excluded, found, after, rows)


def refuse_sealed(model: Path) -> None:
    """Refuse a model whose content must not get to a disk.

    Raises:
        Unsupported: it is sealed.
    """
    if model.is_file() and is_sealed(model):
        raise Unsupported(f"{model} is sealed: convert it before it is sealed")


@contextmanager
def refusing(model: Path) -> Iterator[None]:
    """Say in a sentence why ONNX Runtime's tools did not quantise a model.

    Raises:
        Unsupported: they did not; other errors of ours, and of the disk, stay as they are.
    """
    try:
        yield
    except (EngineError, OSError, MemoryError, ModuleNotFoundError):
        raise
    except Exception as error:
        raise Unsupported(f"{model.name} cannot be quantised: {brief(error)}") from error


def refuse_unchanged(model: Path, made: Path, precision: str) -> None:
    """Refuse a file that has nothing in the precision that was wanted.

    Raises:
        Unsupported: it has not.
    """
    from onnx import TensorProto, load

    graph = load(str(made)).graph
    there = {one.data_type for one in graph.initializer}
    there |= {one.i for node in graph.node for one in node.attribute if one.name == "to"}
    kinds = {
        INT8: {TensorProto.INT8, TensorProto.UINT8},
        FP16: {TensorProto.FLOAT16},
        BF16: {TensorProto.BFLOAT16},
    }
    if not there & kinds[precision]:
        raise Unsupported(f"{model.name} has nothing in FP32 that could become {precision}")


def refuse_far(model: Path, found: Mapping[str, Distance], most: float) -> None:
    """Refuse answers that are too far from the original's.

    Raises:
        Differs: they are.
    """
    name, worst = max(found.items(), key=lambda one: one[1].relative)
    if not worst.relative <= most:
        raise Differs(
            f"the output {name!r} of {model.name} is off by {worst.relative:.3g} of its size, and "
            f"--max-error allows {most:g}"
        )


def answers_of(model: Path, rows: Rows, ran: Callable[[], object]) -> Answers:
    """Return the answers of a model file.

    Raises:
        EngineError: it cannot be opened, or a run failed.
    """
    with closing(open_onnx_cpu(model, EngineOptions())) as engine:
        return answers(engine, rows, ran)


class Attempts:
    """A model quantised again and again, each time without some nodes; calibrated once."""

    def __init__(
        self,
        model: Path,
        folder: Path,
        rows: Rows,
        before: Answers,
        wanted: Wanted,
        ran: Callable[[], object],
    ) -> None:
        """Prepare the model: folded constants and batch normalisations, and names for nodes.

        Raises:
            Unsupported: it has nothing to quantise.
        """
        self._folder, self._rows, self._wanted, self._ran = folder, rows, wanted, ran
        self._seen = rows.first(max(rows.batch, SCANNED_ROWS // rows.batch * rows.batch))
        self._before = {name: array[: len(self._seen)] for name, array in before.items()}
        self._source = folder / "prepared.onnx"
        self._nodes = prepare(model, self._source)

    def scan(self) -> Scan:
        """Find the nodes that must stay as they were for the error to be small enough.

        Raises:
            Differs: no choice of nodes with weights is good enough.
        """
        scan = exclusions(list(self._nodes), self._error, self._wanted.max_error)
        if all(name in scan.excluded for name, kind in self._nodes.items() if kind in WEIGHTED):
            raise Differs(
                f"--max-error {self._wanted.max_error:g} leaves no node with weights to quantise"
            )
        return scan

    def made(self, excluded: Sequence[str] | Mapping[str, float]) -> Path:
        """Return a file of the model, quantised but for some nodes."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        target = self._folder / "quantised.onnx"
        signed = self._wanted.activations == INT8
        quantize_static(
            self._source,
            target,
            Reader(self._rows, self._ran),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(OPERATORS),
            nodes_to_exclude=list(excluded),
            per_channel=True,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibration_cache_path=self._folder / "ranges.json",
            extra_options={
                "ActivationSymmetric": signed,
                "WeightSymmetric": True,
                "QuantizeBias": False,
            },
        )
        return target

    def _error(self, excluded: Sequence[str]) -> float:
        found = answers_of(self.made(excluded), self._seen, self._ran)
        return max(one.relative for one in distances(self._before, found).values())


class Reader:
    """Calibration rows, as ONNX Runtime's quantiser asks for them."""

    def __init__(self, rows: Rows, ran: Callable[[], object]) -> None:
        self._batches, self._ran = rows.batches(), ran

    def get_next(self) -> Mapping[str, Array] | None:
        """Return the inputs of the next run; None after the last."""
        self._ran()
        return next(self._batches, None)


def prepare(model: Path, target: Path) -> dict[str, str]:
    """Write a model as the quantiser wants it; return the operators of what it quantises by name.

    Raises:
        Unsupported: it has nothing to quantise.
    """
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    onnx.save(raised(onnx.load(str(model))), str(target))
    quant_pre_process(str(target), str(target), skip_symbolic_shape=True)
    prepared = onnx.load(str(target))
    for index, node in enumerate(prepared.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    if any(node.op_type == "DequantizeLinear" for node in prepared.graph.node):
        raise Unsupported(f"{model.name} has Q/DQ nodes already")
    if not any(node.op_type in WEIGHTED for node in prepared.graph.node):
        has = ", ".join(sorted({node.op_type for node in prepared.graph.node})) or "none"
        known = ", ".join(sorted(WEIGHTED))
        raise Unsupported(f"{model.name} has no operator to quantise ({known}); it has {has}")
    onnx.save(prepared, str(target))
    return {one.name: one.op_type for one in prepared.graph.node if one.op_type in OPERATORS}


def raised(model: ModelProto) -> ModelProto:
    """Return a model with the least opset, or a later one that it has.

    Raises:
        ConversionFailed: onnx cannot bring it there.
    """
    from onnx import version_converter

    (opset,) = (one.version for one in model.opset_import if one.domain in {"", "ai.onnx"})
    if opset >= LEAST_OPSET:
        return model
    try:
        return version_converter.convert_version(model, LEAST_OPSET)
    except RuntimeError as error:
        text = f"its opset is {opset}, and onnx cannot bring it to {LEAST_OPSET}: {brief(error)}"
        raise ConversionFailed(text) from error
