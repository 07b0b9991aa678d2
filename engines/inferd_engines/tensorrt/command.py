"""`inferd build`: from an ONNX file to a plan in a store."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from inferd_engines.engine import EngineError
from inferd_engines.model_files import is_sealed
from inferd_engines.tensorrt.builder import add_plan, make_plan
from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.host import host_of
from inferd_engines.tensorrt.key import compatible, key_of
from inferd_engines.tensorrt.options import (
    COMPATIBILITIES,
    MIB,
    PRECISIONS,
    BuildOptions,
    read_range,
    sizes,
)
from inferd_engines.tensorrt.profiles import BUCKETS, Range
from inferd_engines.tensorrt.progress import Build, Phase
from inferd_engines.tensorrt.shim import find
from inferd_engines.tensorrt.store import PlanStore

HELP = "build a TensorRT plan from an ONNX file"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    default = ",".join(map(str, BUCKETS))
    parser.add_argument("model", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="plan store")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of the graph")
    parser.add_argument(
        "--buckets", type=sizes, default=BUCKETS, help=f"batch sizes with a profile ({default})"
    )
    parser.add_argument("--no-batch", action="store_true", help="there is no batch dimension")
    parser.add_argument(
        "--range",
        type=named_range,
        action="append",
        default=[],
        metavar="INPUT=MIN:OPT:MAX",
        help="shapes without the batch, such as tokens=1:64:512 or image=3x64x64:3x224x224:...",
    )
    parser.add_argument(
        "--target", action="append", default=[], help="compute capability (TensorRT-RTX)"
    )
    parser.add_argument("--optimization-level", type=int, choices=range(6))
    parser.add_argument("--workspace-mib", type=int)
    parser.add_argument(
        "--version-compatible", action="store_true", help="the plan carries code; see docs"
    )
    parser.add_argument("--hardware-compatibility", choices=COMPATIBILITIES, default="none")
    # For a server that has the key of a sealed model, and seals its plan.
    parser.add_argument("--through-pipes", action="store_true", help=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> int:
    """Build, unless the store has the plan; print where it is and return the exit code."""
    try:
        if arguments.through_pipes:
            build_through_pipes(arguments)
        else:
            print(build(arguments))
    except (EngineError, OSError) as error:
        # One line, the last one: who started this process tells people that.
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def build(arguments: argparse.Namespace) -> Path:
    """Return the folder of the plan, building it if need be."""
    options = options_of(arguments)
    if not arguments.model.is_file():
        raise BuildFailed(f"{arguments.model} does not exist or is not a file")
    if is_sealed(arguments.model):
        raise BuildFailed(f"{arguments.model} is sealed: a server that has its key builds the plan")
    model, folder, library = arguments.model, arguments.output, find()
    host = host_of(library, options)
    key = key_of(model, compatible(host, options), options)
    store = PlanStore(folder)
    with store.building(key):
        if store.find(key) is None:
            with interrupt() as interrupted, bar(interrupted) as under_way:
                add_plan(folder, key, model, library, host, options, under_way)
    found: Path = folder / key.digest
    return found


def build_through_pipes(arguments: argparse.Namespace) -> None:
    """Read the model from standard input, and write its plan to standard output: on no disk."""
    options, library = options_of(arguments), find()
    # What else is written there, by whomever, must not be taken for the plan.
    with os.fdopen(os.dup(1), "wb") as target:
        os.dup2(2, 1)
        content = sys.stdin.buffer.read()
        folder, host = arguments.output, host_of(library, options)
        with interrupt() as interrupted, bar(interrupted) as under_way:
            plan = make_plan(folder, arguments.model, library, host, options, under_way, content)
        target.write(plan)


def options_of(arguments: argparse.Namespace) -> BuildOptions:
    """Turn flags into options."""
    mib = arguments.workspace_mib
    return BuildOptions(
        precision=arguments.precision,
        buckets=tuple(arguments.buckets),
        ranges=dict(arguments.range),
        batched=not arguments.no_batch,
        targets=tuple(arguments.target),
        optimization_level=arguments.optimization_level,
        workspace_bytes=None if mib is None else mib * MIB,
        version_compatible=arguments.version_compatible,
        hardware_compatibility=arguments.hardware_compatibility,
    )


def named_range(text: str) -> tuple[str, Range]:
    """Parse "image=3x64x64:3x224x224:3x512x512"."""
    name, _, rest = text.partition("=")
    try:
        return name, read_range(rest)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not INPUT=MIN:OPT:MAX") from error


@contextmanager
def bar(interrupted: threading.Event) -> Iterator[Build]:
    """Give a build that shows how far its outermost phase is."""
    with tqdm(unit="step", file=sys.stderr, leave=False) as shown:

        def told(phase: Phase, done: int) -> None:
            if not phase.parent:
                shown.set_description(phase.name)
                shown.total = phase.steps
                shown.n = done
                shown.refresh()

        yield Build(told, interrupted)


@contextmanager
def interrupt() -> Iterator[threading.Event]:
    """Give what SIGINT sets, instead of leaving TensorRT in the middle of a build."""
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda _number, _frame: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)
