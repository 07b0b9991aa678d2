"""The corpus in the repository: one archive for each target, small, and alike on every machine."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

FOLDER = Path(__file__).parent / "corpus"


def read(name: str) -> list[bytes]:
    """Return the inputs of a target, in the order of their names."""
    with ZipFile(FOLDER / f"{name}.zip") as archive:
        return [archive.read(entry) for entry in sorted(archive.namelist())]


def unpack(name: str, folder: Path) -> None:
    """Write the inputs of a target to a folder, if there are any."""
    path = FOLDER / f"{name}.zip"
    if path.exists():
        with ZipFile(path) as archive:
            archive.extractall(folder)


def pack(name: str, folder: Path) -> None:
    """Keep what is in a folder as the inputs of a target."""
    FOLDER.mkdir(exist_ok=True)
    with ZipFile(FOLDER / f"{name}.zip", "w", ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            # Without the time, equal inputs make equal archives.
            archive.writestr(ZipInfo(path.name), path.read_bytes(), ZIP_DEFLATED)
