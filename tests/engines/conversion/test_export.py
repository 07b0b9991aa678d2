"""`inferd export`: a module becomes ONNX and answers as PyTorch does, or there is no file."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from inferd_client.cli import main
from inferd_engines.engine import EngineOptions
from inferd_engines.onnx import open_onnx

PYTHON = Path(__file__).parents[3] / ".tools/example-images/bin/python"
LOADERS = """
import torch

class Off(torch.nn.Module):
    def forward(self, x):
        return x + 1 if torch.compiler.is_exporting() else x

class Branching(torch.nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x

def good(checkpoint):
    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Dropout(0.5))
    module.load_state_dict(torch.load(checkpoint))
    return module

def off(checkpoint):
    return Off()

def branching(checkpoint):
    return Branching()

def graph(checkpoint):
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    shapes = ({0: torch.export.Dim("batch")},)
    traced = torch.export.export(good(checkpoint), (torch.zeros(2, 4),), dynamic_shapes=shapes)
    made = traced.module()
    allow_exported_model_train_eval(made)
    return made

def large(checkpoint):
    return torch.nn.Linear(4, 3000)

def none(checkpoint):
    return None

if __name__ == "__main__":
    torch.manual_seed(0)
    torch.save({"0.weight": torch.randn(3, 4), "0.bias": torch.randn(3)}, "model.pt")
"""
ROWS = np.random.default_rng(0).random((40, 4), np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "loaders.py").write_text(LOADERS)
    np.savez(tmp_path / "rows.npz", x=ROWS)
    return tmp_path


def export(folder: Path, loader: str, *flags: str) -> tuple[int, str]:
    """Run the command where PyTorch is; return its exit code and its last line of errors."""
    command = [PYTHON, "-m", "inferd_client", "export", "model.pt", "out.onnx"]
    command += ["--loader", f"loaders.py:{loader}", "--data", "rows.npz", *flags]
    # Where there is a small disk, temporary files are on it.
    where = {**os.environ, "TMPDIR": str(folder / "disk")}
    done = subprocess.run(
        command, cwd=folder, env=where, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stderr.strip().rpartition("\n")[2]


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is here")
def test_without_pytorch_the_extra_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--loader", "loaders.py:good", "--data", str(folder / "rows.npz")]
    assert main(["export", str(folder / "model.pt"), str(folder / "out.onnx"), *flags]) == 1
    assert "run pip install 'inferd[train]' first" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make example` fetches PyTorch")
def test_an_export_answers_as_pytorch_or_is_not_written(folder: Path) -> None:
    target = folder / "out.onnx"
    subprocess.run([PYTHON, "loaders.py"], cwd=folder, check=True)
    for loader, flags, sentence in (
        ("off", (), "the output 'output' is off by 1 from PyTorch's, and --tolerance allows"),
        ("branching", (), "PyTorch cannot export this module"),
        ("none", (), "returned NoneType, no torch.nn.Module"),
        ("missing", (), "loaders.py:missing failed: AttributeError"),
        ("good", ("--output", "y", "--output", "z"), "1 outputs, and 2 names were given"),
    ):
        code, error = export(folder, loader, *flags)
        assert code == 1
        assert sentence in error
        assert not target.exists()
    for loader in ("good", "graph"):
        assert export(folder, loader, "--output", "y")[0] == 0
        engine = open_onnx(target, EngineOptions())
        assert [tensor.shape for tensor in engine.signature.inputs] == [(None, 4)]
        for rows in (1, 7, 40):
            assert engine.run({"x": ROWS[:rows]}, {}, rows)["y"].shape == (rows, 3)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make example` fetches PyTorch")
def test_rows_that_the_module_does_not_take_are_refused(folder: Path) -> None:
    subprocess.run([PYTHON, "loaders.py"], cwd=folder, check=True)
    np.savez(folder / "rows.npz", x=ROWS[:, :3])
    code, error = export(folder, "good")
    assert code == 1
    assert "the module does not take these rows" in error
    np.savez(folder / "rows.npz", x=np.full((4, 4), np.nan, np.float32))
    assert "'x' has NaN or infinity" in export(folder, "good")[1]


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON.exists(), reason="`make example` fetches PyTorch")
def test_an_export_that_finds_no_room_is_not_written(folder: Path, disk: Path) -> None:
    subprocess.run([PYTHON, "loaders.py"], cwd=folder, check=True)
    code, error = export(folder, "large")
    assert code == 1
    assert error.startswith("inferd export: [Errno 28] No space left on device")
    assert not (folder / "out.onnx").exists()
    assert disk.stat().st_dev != folder.stat().st_dev
