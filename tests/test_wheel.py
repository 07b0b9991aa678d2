"""The wheel holds what its users need: packages, .proto files, the shipped model, types."""

from __future__ import annotations

import re
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
        "inferd_seal/py.typed",
        "inferd_server/py.typed",
        "inferd_server/shipped_models/digits/1/model.onnx",
        "inferd_server/shipped_models/digits/model.yaml",
    ],
)
def test_the_wheel_holds(wheel: Path, name: str) -> None:
    assert name in zipfile.ZipFile(wheel).namelist()


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = {top for top in tops if not top.endswith(".dist-info")}
    assert packages == {
        "inferd",
        "inferd_client",
        "inferd_engines",
        "inferd_seal",
        "inferd_server",
        "inferd_store",
    }


def needs(wheel: Path) -> dict[str, str]:
    """Return what the base install requires: versions by name."""
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("METADATA"))
    found = re.findall(
        r"^Requires-Dist: ([\w-]+)([^;\n]*)$", archive.read(metadata).decode(), re.MULTILINE
    )
    return dict(found)


def test_the_base_install_needs_no_server_package(wheel: Path) -> None:
    assert sorted(needs(wheel)) == ["grpcio", "ml-dtypes", "numpy", "protobuf", "tqdm"]


def test_the_base_install_runs_on_what_other_clients_of_the_protocol_allow(wheel: Path) -> None:
    assert needs(wheel)["protobuf"] == "<8,>=6.31"
    assert needs(wheel)["grpcio"] == ">=1.73"
