"""Plans on this host's GPU, beside the bare execution loop, as tables.

    python -m benchmarks.gpu [--model digits,resnet50,FILE.onnx] [--precision fp32,fp16]

Each model's plan is built, and every bucket run in turns: execute_async_v3 on fixed buffers with
the same copies, and the engine, without and with CUDA graphs; one run at a time, and two under
way. CUDA events split a run into its copies and the work. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from inferd_engines.engine import EngineError
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.opener import Gpu, find_gpu
from inferd_engines.tensorrt.options import BuildOptions, sizes
from inferd_server.settings.model import shipped_models

from benchmarks import resnet50
from benchmarks.gpu.host import add_tools
from benchmarks.gpu.measuring import Effort, measure
from benchmarks.gpu.results import Bucket, throughput, times
from benchmarks.gpu.subject import build


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return 0, or 1 if something failed or there is no GPU."""
    options = parser().parse_args(arguments)
    add_tools()
    try:
        gpu = find_gpu()
    except TensorRTError as error:
        print(f"nothing was measured, there is no GPU: {error}", file=sys.stderr)
        return 0 if options.or_skip else 1
    with gpu.device.current(), tempfile.TemporaryDirectory() as folder:
        found, failures = measure_all(gpu, options, Path(folder))
    here = f"{gpu.device.gpu.name}, {gpu.library.flavour} {gpu.library.version}"
    print(f"{here}\n\n{throughput(found)}\n\n{times(found)}")
    if options.json:
        figures = {"host": here, "buckets": [bucket.as_json() for bucket in found]}
        options.json.write_text(json.dumps(figures, indent=2))
    return 1 if failures else 0


def measure_all(
    gpu: Gpu, options: argparse.Namespace, folder: Path
) -> tuple[list[Bucket], list[str]]:
    """Measure every model in every precision; go on after one that fails, and say which did."""
    found: list[Bucket] = []
    failures = []
    for model in options.model.split(","):
        for precision in options.precision.split(","):
            name = f"{Path(model).stem} {precision}"
            try:
                tell(f"building {name}")
                wanted = BuildOptions(precision, buckets=options.buckets)
                subject = build(gpu, name, model_file(model, folder), wanted)
                effort = Effort(options.rounds, options.seconds)
                found += measure(subject, effort, time.perf_counter, tell)
            except (EngineError, gpu.device.cuda.Error) as error:
                failures.append(f"{name} failed: {error}")
                tell(failures[-1])
    return found, failures


def model_file(model: str, folder: Path) -> Path:
    """Return the file of a model that is named, or is a file."""
    if model == "digits":
        return shipped_models() / "digits/1/model.onnx"
    if model == "resnet50":
        return resnet50.write(folder)
    return Path(model)


def tell(text: str) -> None:
    """Say what is done, apart from the tables."""
    print(text, file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    about = (__doc__ or "").split("\n", 1)[0]
    made = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=about)
    made.add_argument("--model", default="digits,resnet50")
    made.add_argument("--precision", default="fp32,fp16")
    made.add_argument("--buckets", type=sizes, default=(1, 8, 32))
    made.add_argument("--rounds", type=int, default=Effort().rounds)
    made.add_argument("--seconds", type=float, default=Effort().seconds)
    made.add_argument("--json", type=Path, help="write every figure to this file")
    made.add_argument("--or-skip", action="store_true", help="no GPU is no failure")
    return made


if __name__ == "__main__":
    sys.exit(main())
