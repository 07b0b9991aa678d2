"""The digest of a model's files: what the answers of a version depend on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

from inferd_server.repository.config import ModelConfig
from inferd_server.repository.files import FileState, file_states

log = logging.getLogger(__name__)


class ModelFiles:
    """The files of a version from before its engine reads them, if its answers are kept."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Look at them, unless nothing is kept."""
        self._folder = folder
        self._options = config.engine_options
        self._wanted = config.response_cache is not None
        self._before = self._states() if self._wanted else None

    def digest(self) -> str:
        """Return the digest of what the engine has read; "" if nothing is kept, or can be."""
        if not self._wanted:
            return ""
        try:
            digest = digest_of(self._folder, self._options)
        except OSError as error:
            why = f"its files cannot be read: {error.strerror}"
        else:
            if self._before is not None and self._states() == self._before:
                return digest
            why = "its files changed while it was loaded"
        log.warning("answers are not kept", extra={"folder": str(self._folder), "why": why})
        return ""

    def _states(self) -> list[FileState] | None:
        try:
            return file_states(self._folder)
        except OSError:
            return None


def digest_of(folder: Path, options: Mapping[str, str]) -> str:
    """Return the digest of a version's files, and of the options that its engine gets.

    Raises:
        OSError: something cannot be read.
    """
    digest = hashlib.sha256(repr(sorted(options.items())).encode())
    for state in file_states(folder):
        digest.update(repr((state.name, state.size)).encode(errors="surrogateescape"))
        with (folder / state.name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
