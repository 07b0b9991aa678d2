"""Overrides: what a caller who loads a model gives in place of its model.yaml, or of its folder."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from inferd_server.errors import InvalidInput, MemoryBudgetExceeded, ModelNotReady, SettingsError
from inferd_server.models.config import ModelConfig, parse_model_config
from inferd_server.models.layout import ModelSource, is_utf8, read_source

MOST_FILES = 64
"""Of one model."""
MOST_BYTES = 2**29
"""Of the files of all models."""
LONGEST_PATH = 255
PREFIX = "inferd-files-"
"""Of the folder of a process."""
# A version's folder, and then no component that leads elsewhere.
PATH = re.compile(r"[1-9][0-9]{0,17}(/(?!\.{1,2}(/|$))[^/\0]+)+")
NAME = re.compile(r"(?!\.)[^/\0]+")
LONGEST_NAME = 255
"""Bytes of a folder's name."""


@dataclass(frozen=True, slots=True)
class Override:
    """A configuration in place of model.yaml, and files in place of the model's folder."""

    config: str
    """JSON with the names of model.yaml."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """By path, such as "1/model.onnx"; none: the folder's own."""

    @property
    def nbytes(self) -> int:
        """Bytes of the files."""
        return sum(map(len, self.files.values()))

    def check(self, name: str) -> ModelConfig:
        """See whether a model of this name can be loaded so, and return its configuration.

        Raises:
            InvalidInput: the configuration, a path or the name is none.
        """
        try:
            config = parse_model_config(self.config)
        except SettingsError as error:
            raise InvalidInput(str(error)) from error
        if len(self.files) > MOST_FILES:
            raise InvalidInput(f"{len(self.files)} files are given; at most {MOST_FILES} may be")
        for path in self.files:
            if len(path.encode()) > LONGEST_PATH or not PATH.fullmatch(path):
                raise InvalidInput(
                    f"file {path!r} does not lie in a version's folder, such as '1/model.onnx'"
                )
            if parent := next((str(p) for p in Path(path).parents if str(p) in self.files), ""):
                raise InvalidInput(f"file {path!r} lies in {parent!r}, which is a file, too")
        if self.files and not is_folder_name(name):
            raise InvalidInput(f"{name!r} cannot be the name of a model")
        return config


@dataclass(frozen=True, slots=True)
class Placed:
    """An override whose files are on disk."""

    config: ModelConfig
    folder: Path | None = None
    """Of the files; None: the model's own are used."""

    def source(self, repository: Path, name: str) -> ModelSource:
        """Find the versions to serve.

        Raises:
            SettingsError: there are none, or they cannot be read.
        """
        return read_source(self.folder or repository, name, self.config)

    def discard(self) -> None:
        """Delete the files."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


class Overrides:
    """The overrides of the models that were loaded with one.

    Several threads may use it, of one model one at a time.
    """

    def __init__(self, most: int = MOST_BYTES, temporary: Path | None = None) -> None:
        """Begin with none.

        Args:
            most: bytes of files.
            temporary: folder to write them to; None: the system's.
        """
        self._most = most
        self._temporary = temporary or Path(tempfile.gettempdir())
        self._kept: dict[str, Placed] = {}
        self._restored: dict[str, Override] = {}
        self._root: Path | None = None
        # One writes at a time, so that what lies on disk is what counts.
        self._writing = threading.Lock()

    def restore(self, overrides: Mapping[str, Override]) -> None:
        """Take the overrides of a process before this one."""
        self._restored = dict(overrides)

    @property
    def names(self) -> set[str]:
        """Of the models that have one."""
        return {*self._kept, *self._restored}

    def of(self, name: str) -> Placed | None:
        """Return the override of a model, if it has one.

        Raises:
            InferdError: it cannot be placed again.
        """
        if name in self._restored:
            self._kept[name] = self.place(name, self._restored[name])
            del self._restored[name]
        return self._kept.get(name)

    def place(self, name: str, override: Override) -> Placed:
        """Write the files of an override.

        Raises:
            InvalidInput: it is none.
            MemoryBudgetExceeded: the files of all overrides would take too much.
            ModelNotReady: the files cannot be written.
        """
        config, nbytes = override.check(name), override.nbytes
        if not override.files:
            return Placed(config)
        with self._writing:
            # Those of models that are loading count, too.
            held = bytes_in(self._root) if self._root is not None else 0
            if held + nbytes > self._most:
                raise MemoryBudgetExceeded(
                    f"its files have {nbytes} bytes, and {held} are kept; "
                    f"{self._most} may be in all"
                )
            try:
                return Placed(config, self._write(name, override.files))
            except OSError as error:
                raise ModelNotReady(f"its files cannot be written: {error.strerror}") from error

    def keep(self, name: str, placed: Placed | None) -> None:
        """Remember what a model was loaded with, and forget what it was before."""
        self._restored.pop(name, None)
        before = self._kept.pop(name, None)
        if placed is not None:
            self._kept[name] = placed
        if before is not None and before is not placed:
            before.discard()

    def close(self) -> None:
        """Delete all files."""
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    def _write(self, name: str, files: Mapping[str, bytes]) -> Path:
        if self._root is None:
            self._root = own_folder(self._temporary, PREFIX)
        folder = Path(tempfile.mkdtemp(dir=self._root))
        try:
            for path, data in files.items():
                target = folder / name / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
        except BaseException:
            # A full disk would stay full.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder


def is_folder_name(name: str) -> bool:
    """Tell whether a folder can have this name."""
    return bool(NAME.fullmatch(name)) and is_utf8(name) and len(name.encode()) <= LONGEST_NAME


def bytes_in(folder: Path) -> int:
    """Return the bytes of all files below a folder, while others may be deleting there."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(parent, name)).st_size  # noqa: PTH116, PTH118
    return total


def own_folder(temporary: Path, prefix: str) -> Path:
    """Return a new folder of this process, whose predecessors' are deleted if they were killed.

    Raises:
        OSError: it cannot be made.
    """
    sweep(temporary, prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=temporary))
    # Held until this process ends, however it does.
    fcntl.flock(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), fcntl.LOCK_EX)
    return folder


def sweep(temporary: Path, prefix: str = PREFIX) -> None:
    """Delete what processes that were killed have left."""
    for folder in temporary.glob(f"{prefix}*"):
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Somebody else's.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            # Its process lives.
            continue
        finally:
            os.close(descriptor)
