"""What runs on a host with a GPU and no network imports only what is there: image and kit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
THERE = frozenset({
    "numpy", "onnx", "onnxruntime", "ml_dtypes", "google", "grpc", "grpc_health", "grpc_reflection",
    "pycuda", "pytools", "platformdirs", "siphash24", "mako", "markupsafe", "typing_extensions",
    "tensorrt_rtx", "pydantic", "pydantic_core", "annotated_types", "typing_inspection", "dotenv",
    "pydantic_settings", "pythonjsonlogger", "prometheus_client", "redis", "hpack", "yaml",
    "pytest", "py", "_pytest", "pluggy", "iniconfig", "packaging", "hypothesis", "sortedcontainers",
    "attr", "attrs", "pygments",
})  # fmt: skip
"""Packages of the kit, and of the image whose tests run there."""
IMPORTS = """
import importlib, sys
from importlib.metadata import packages_distributions

allowed, modules = sys.argv[1].split(","), sys.argv[2].split(",")
ours = {name.partition(".")[0] for name in modules} | {"inferd", "inferd_client"}
ours |= {"inferd_engines", "inferd_server"}
others = set(packages_distributions()) - set(allowed) - ours - set(sys.stdlib_module_names)

class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        # Parts of a package that others import by themselves.
        if top in others and not top.startswith("_"):
            raise ModuleNotFoundError(f"{name} is not in the kit", name=name)

sys.meta_path.insert(0, Absent())
for module in modules:
    importlib.import_module(module)
"""


def modules(folder: str) -> list[str]:
    paths = sorted((ROOT / folder).glob("*.py"))
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return [name.removesuffix(".__init__") for name in names]


@pytest.mark.parametrize("folder", ["tests/gpu", "benchmarks/gpu"])
def test_everything_imports_with_what_a_host_with_a_gpu_has(folder: str) -> None:
    found = modules(folder)
    assert len(found) > 4
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS, ",".join(THERE), ",".join(["tests.conftest", *found])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
