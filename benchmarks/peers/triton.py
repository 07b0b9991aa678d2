"""Triton's core with its Python back end, both from PyTriton's wheel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from shutil import copyfile

from benchmarks.peers.models import Model

_MODEL = Path(__file__).parent / "adapters/triton_model.py"


def write(folder: Path, model: Model, root: Path, delay_us: int) -> Path:
    """Lay out Triton's model repository and return its path."""
    place = folder / "repository" / model.name
    (place / "1").mkdir(parents=True)
    copyfile(_MODEL, place / "1/model.py")
    (place / "config.pbtxt").write_text(config(model, model.path(root), delay_us))
    return place.parent


def config(model: Model, path: Path, delay_us: int) -> str:
    """Return a model configuration: two instances, dynamic batching with this delay."""
    return f"""\
name: "{model.name}"
backend: "python"
max_batch_size: {model.max_batch}
input [{{ name: "{model.input}" data_type: TYPE_FP32 dims: {list(model.input_shape)} }}]
output [{{ name: "{model.output}" data_type: TYPE_FP32 dims: {list(model.output_shape)} }}]
instance_group [{{ count: 2 kind: KIND_CPU }}]
dynamic_batching {{ max_queue_delay_microseconds: {delay_us} }}
parameters {{ key: "path" value: {{ string_value: {json.dumps(str(path))} }} }}
"""


def command(packages: Path, repository: Path, port: int) -> Sequence[str]:
    """Return the command line of the server inside these site-packages."""
    inside = packages / "pytriton/tritonserver"
    return [
        str(inside / "bin/tritonserver"),
        f"--model-repository={repository}",
        f"--backend-directory={inside / 'backends'}",
        "--disable-auto-complete-config",
        "--allow-http=false",
        "--allow-metrics=false",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={port}",
    ]
