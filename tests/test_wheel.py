"""The wheel holds what its users need: packages, .proto files, the shipped model, types."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.parametrize(
    "name",
    [
        "inferd/oip/v2/inference.proto",
        "inferd/oip/v2/model_config.proto",
        "inferd/oip/v2/inference_pb2.py",
        "inferd/oip/v2/inference_pb2_grpc.py",
        "inferd/v1/server.proto",
        "inferd/py.typed",
        "inferd_client/py.typed",
        "inferd_engines/py.typed",
        "inferd_server/py.typed",
        "inferd_server/models/digits/1/model.onnx",
        "inferd_server/models/digits/model.yaml",
    ],
)
def test_the_wheel_holds(wheel: Path, name: str) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {"inferd", "inferd_client", "inferd_engines", "inferd_server"}


def test_the_base_install_needs_no_server_package(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    needs = [
        line.removeprefix("Requires-Dist: ")
        for line in archive.read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    names = sorted(need.split(">")[0] for need in needs)
    assert names == ["grpcio", "ml-dtypes", "numpy", "protobuf", "tqdm"]
