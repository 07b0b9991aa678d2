"""The files of a release that is added to a store, found, looked at, and checked."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from inferd_engines.model_files import SEALED
from inferd_engines.onnx_file import external_names
from inferd_seal.trusted_files import SEAL_FILE

from inferd_store.errors import Refused
from inferd_store.objects import CHUNK
from inferd_store.release import (
    CONFIG_FILE,
    GOLDEN_FILE,
    REFERENCE_FILE,
    About,
    Contents,
    Release,
    StoredFile,
)

MODEL_FILES = ("model.onnx", "model.ort")
MOST_FILES = 1000
LARGEST = 2**40
"""Bytes of a release."""
State = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class Draft:
    """The files of what is to become a release, by their path in the version's folder."""

    files: Mapping[str, Path]

    @property
    def model(self) -> str:
        """Path of the model file."""
        return next(name for name in MODEL_FILES if name in self.files)


def draft_of(
    source: Path,
    golden: Path | None = None,
    config: Path | None = None,
    reference: Path | None = None,
) -> Draft:
    """Find the files of a release.

    Args:
        source: a model file, whose weights lie beside it, or the folder of a version.
        golden: inputs and outputs in place of the folder's golden.npz.
        config: in place of the folder's model.yaml.
        reference: rows that requests are compared with, in place of the folder's reference.npz.

    Raises:
        Refused: there is no model, or something that cannot be part of one.
    """
    files = _of_folder(source) if source.is_dir() else _of_file(source)
    given = ((golden, GOLDEN_FILE), (config, CONFIG_FILE), (reference, REFERENCE_FILE))
    for path, name in given:
        if path is not None:
            files[name] = path
    draft = Draft(files)
    if not any(name in files for name in MODEL_FILES):
        raise Refused(f"{source} has no {MODEL_FILES[0]}; give the model file or its folder")
    if len(files) > MOST_FILES:
        raise Refused(f"{source} has {len(files)} files; {MOST_FILES} may be in a release")
    _check_weights(draft)
    for name, path in files.items():
        _state_of(name, path)
    return draft


def _of_folder(folder: Path) -> dict[str, Path]:
    found = {}
    for parent, folders, names in os.walk(folder, onerror=_unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [*names, *(one for one in folders if (Path(parent) / one).is_symlink())]:
            path = Path(parent) / name
            if not name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path
    return found


def _unreadable(error: OSError) -> None:
    raise Refused(f"{error.filename} cannot be read: {error.strerror}") from error


def _of_file(file: Path) -> dict[str, Path]:
    if not file.exists():
        raise Refused(f"{file} does not exist")
    if file.suffix not in {".onnx", ".ort"}:
        raise Refused(f"{file} is not named like a model: a file .onnx or .ort was expected")
    found = {f"model{file.suffix}": file}
    if (file.parent / SEAL_FILE).exists():
        raise Refused(f"{file} is sealed; give its folder {file.parent}, all of which is added")
    for name in _external(file):
        found[name] = file.parent / name
    config = file.parent / CONFIG_FILE
    if config.exists():
        found[CONFIG_FILE] = config
    return found


def _external(model: Path) -> frozenset[str]:
    _state_of(model.name, model)
    try:
        content = model.read_bytes()
    except OSError as error:
        raise Refused(f"{model} cannot be read: {error.strerror}") from error
    # What a sealed one names is told once it is opened.
    names = frozenset() if content.startswith(SEALED) else external_names(content)
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise Refused(f"{model} has weights at {name!r}, outside its folder")
    return names


def _check_weights(draft: Draft) -> None:
    model = draft.files[draft.model]
    for name in sorted(_external(model)):
        if not draft.files.get(PurePosixPath(name).as_posix(), Path()).is_file():
            raise Refused(f"{model} has weights in {name!r}, and there is no such file beside it")


def _state_of(name: str, path: Path) -> State:
    """Return what tells one content of a file from another.

    Raises:
        Refused: it is no plain file of its own.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(status.st_mode):
        raise Refused(f"{path} is a symbolic link; a release holds files: copy {name} in its place")
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path} is no plain file, and cannot be part of a release")
    if status.st_nlink > 1:
        raise Refused(f"{path} is a hard link, which others may write through; copy it first")
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class Sources:
    """The files of a draft with their digests, and whether they stayed what they were."""

    def __init__(self, draft: Draft) -> None:
        """Read every file.

        Raises:
            Refused: one cannot be read, or they are too large.
        """
        self._states = {name: _state_of(name, path) for name, path in draft.files.items()}
        self._draft = draft
        self.files = [
            (StoredFile(name, file_digest(path), self._states[name][1]), path)
            for name, path in sorted(draft.files.items())
        ]
        if sum(file.size for file, _ in self.files) > LARGEST:
            raise Refused("a release has 1 TiB at most")

    def check(self) -> None:
        """See whether the files are what they were.

        Raises:
            Refused: one was changed.
        """
        for name, path in self._draft.files.items():
            if _state_of(name, path) != self._states[name]:
                raise Refused(f"{path} was changed while it was added; add it again")

    def release(self, contents: Contents, about: About, time: str, sealed_as: int = 0) -> Release:
        """Return the release that they make."""
        return Release(tuple(file for file, _ in self.files), contents, about, time, sealed_as)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits.

    Raises:
        Refused: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while part := file.read(CHUNK):
                digest.update(part)
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def pairs(texts: Iterable[str]) -> dict[str, str]:
    """Read texts such as "accuracy=0.97".

    Raises:
        Refused: one is not like that.
    """
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise Refused(f"NAME=VALUE was expected, not {text!r}")
        found[name] = value
    return found
