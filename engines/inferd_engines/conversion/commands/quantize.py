"""inferd quantize: a model in INT8 with Q/DQ nodes, in FP16, or with weights in BF16."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferd_engines.conversion.commands import done
from inferd_engines.conversion.quantization import (
    BF16,
    FP16,
    INT8,
    MAX_ERROR,
    UINT8,
    Wanted,
    quantize,
)

HELP = "make a smaller model: INT8 after training, FP16, or weights in BF16"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("model", type=Path, metavar="IN.onnx")
    add("output", type=Path, metavar="OUT.onnx")
    add("--calibration", type=Path, required=True, metavar="DATA.npz", help="rows by input name")
    add("--precision", choices=(INT8, FP16, BF16), default=INT8, help="default: int8")
    add(
        "--activations",
        choices=(INT8, UINT8),
        default=INT8,
        help="int8: TensorRT builds it, too (default); uint8: faster in ONNX Runtime",
    )
    add(
        "--max-error",
        type=float,
        default=MAX_ERROR,
        metavar="X",
        help="that an output may be off, as a part of its size; where INT8 is off by more, the "
        "nodes that it hurts most stay FP32 (default: %(default)s)",
    )
    done.add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Quantise, compare, write, and return the exit code."""
    return done.guarded("quantize", arguments, quantized)


def quantized(arguments: argparse.Namespace) -> int:
    """Quantise, compare and write.

    Raises:
        EngineError: it cannot be done as asked; nothing is written.
        OSError: there is no room.
    """
    before = arguments.model.stat().st_size
    wanted = Wanted(arguments.precision, arguments.activations, arguments.max_error)
    with done.counting("quantising") as ran:
        made = quantize(arguments.model, arguments.calibration, wanted, ran)
    done.write(arguments.output, made.content, arguments.golden, made.rows, made.answers)
    after = len(made.content)
    told = done.document(
        made.distances,
        model=str(arguments.output),
        precision=wanted.precision,
        bytes_before=before,
        bytes_after=after,
        excluded=made.excluded,
    )
    lines = [f"{arguments.output}: {before} bytes became {after}"]
    lines += [f"stays as it was: {node} ({error:.3g})" for node, error in made.excluded.items()]
    done.printed(told, lines + done.distance_lines(made.distances), as_json=arguments.json)
    return 0
