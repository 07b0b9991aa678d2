"""inferd export: a PyTorch checkpoint as an ONNX file, compared with PyTorch."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferd_engines.conversion.commands import done
from inferd_engines.conversion.exporting import export

HELP = "make an ONNX file of a PyTorch checkpoint"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="given to the loader function")
    add("target", type=Path, metavar="OUT.onnx")
    add(
        "--loader",
        required=True,
        metavar="FILE.py:FUNCTION",
        help="gets the checkpoint's path and returns the module; MODULE:FUNCTION, too",
    )
    add("--data", type=Path, required=True, metavar="DATA.npz", help="rows, in order of arguments")
    add("--output", action="append", default=[], metavar="NAME", help="of each output, in order")
    add(
        "--tolerance",
        type=float,
        default=1e-4,
        metavar="X",
        help="that answers may be off from PyTorch's, relative and absolute (default: %(default)s)",
    )
    done.add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Export, compare, write, and return the exit code."""
    return done.guarded("export", arguments, exported)


def exported(arguments: argparse.Namespace) -> int:
    """Export, compare and write.

    Raises:
        EngineError: it cannot be exported, or differs; nothing is written.
        OSError: there is no room.
    """
    names = arguments.output or ["output"]
    with done.counting("comparing") as ran:
        made = export(
            arguments.checkpoint, arguments.loader, arguments.data, names, arguments.tolerance, ran
        )
    done.write(arguments.target, made.content, arguments.golden, made.rows, made.answers)
    told = done.document(made.distances, model=str(arguments.target), bytes=len(made.content))
    lines = [f"{arguments.target}: {len(made.content)} bytes, dimension 0 of every input is free"]
    done.printed(told, lines + done.distance_lines(made.distances), as_json=arguments.json)
    return 0
