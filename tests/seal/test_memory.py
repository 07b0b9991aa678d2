"""What unsealing takes: the model once, and little besides. Needs 2 GB of disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests import models

from .sealing import make_keys

SIZE = 500 << 20
ONNX_AND_NOTHING_ELSE = """
import json, sys
from pathlib import Path
from inferd_engines.engine import EngineOptions
from inferd_engines.model_files import ModelFiles
from inferd_engines.onnx import open_onnx
from inferd_seal.trusted_files import read_demands, reader_of
import onnxruntime, inferd_seal.reader

def peak():
    told = Path("/proc/self/status").read_text()
    return int(told.split("VmHWM:")[1].split()[0]) << 10

model, demands = Path(sys.argv[1]), read_demands(*sys.argv[2:])
before = peak()
files = ModelFiles(model, reader=reader_of(demands, "m", 1, model))
files.content()
files.read("w.bin")
read = peak() - before
engine = open_onnx(model, EngineOptions(files=files))
print(json.dumps({"read": read, "opened": peak() - before}))
"""


def large(folder: Path) -> None:
    """Write a model of SIZE bytes, most of it beside its file."""
    weights = np.random.default_rng(0).integers(0, 255, SIZE // 4, np.int32).view(np.float32)
    tensor = numpy_helper.from_array(weights.reshape(-1, 1024), "w")
    node = helper.make_node("MatMul", ["INPUT0", "w"], ["OUTPUT0"])
    ends = [
        models.tensor("INPUT0", "FP32", ("batch", SIZE // 4096)),
        models.tensor("OUTPUT0", "FP32", ("batch", 1024)),
    ]
    graph = helper.make_graph([node], "test", ends[:1], ends[1:], [tensor])
    opsets = [helper.make_opsetid("", models.OPSET)]
    proto = helper.make_model(graph, ir_version=models.IR_VERSION, opset_imports=opsets)
    folder.mkdir(parents=True)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="w.bin")


def measured(model: Path, *demands: str) -> dict[str, int]:
    command = [sys.executable, "-c", ONNX_AND_NOTHING_ELSE, str(model), *demands]
    # One pool of memory, so that what is freed does not hide in another.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    told: dict[str, int] = json.loads(done.stdout)
    return told


@pytest.mark.slow
def test_a_model_of_500_mb_is_unsealed_with_little_more_memory_than_its_size(
    tmp_path: Path,
) -> None:
    keys = make_keys(tmp_path)
    folder = tmp_path / "m/1"
    large(folder)
    plain = measured(folder / "model.onnx", "", "", "any")
    keys.seal(folder)
    sealed = measured(folder / "model.onnx", keys.key, str(keys.public), "sealed")
    assert SIZE < sealed["read"] < 1.2 * SIZE
    assert sealed["opened"] - plain["opened"] < 0.2 * SIZE
