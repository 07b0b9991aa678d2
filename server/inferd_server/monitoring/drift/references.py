"""The references of a server's versions, in memory and in a folder that its processes share."""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from inferd_server.monitoring.drift.reference import Reference

log = logging.getLogger(__name__)
FORMAT = 1
"""Part of the names of files: what another version of inferd measured otherwise is not read."""
_JSON = TypeAdapter(Reference)


class References:
    """References by key; the first one of a key holds. Any thread may call any method."""

    def __init__(self, folder: Path | None) -> None:
        """Keep the folder; None keeps references in this process alone, and for its life."""
        self._folder = folder
        self._known: dict[str, Reference] = {}

    def find(self, key: str) -> Reference | None:
        """Return a reference; None where there is none, or none that can be read."""
        if key not in self._known and self._folder is not None:
            found = self._read(self._path(self._folder, key))
            if found is not None:
                self._known.setdefault(key, found)
        return self._known.get(key)

    def agree(self, key: str, reference: Reference) -> Reference:
        """Keep a reference unless there is one of its key; return the one that holds.

        Processes that learn at the same time agree by this: the first file stays.
        """
        if self._folder is not None:
            try:
                self._write(self._path(self._folder, key), reference)
            except FileExistsError:
                reference = self.find(key) or reference
            except OSError as error:
                about = {"folder": str(self._folder), "why": str(error)}
                log.warning("a reference is not kept beyond this process", extra=about)
        return self._known.setdefault(key, reference)

    def _path(self, folder: Path, key: str) -> Path:
        return folder / f"{key}.{FORMAT}.json"

    def _read(self, path: Path) -> Reference | None:
        try:
            found = _JSON.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as error:
            log.warning("a reference cannot be read", extra={"path": str(path), "why": str(error)})
            return None
        if any(len(one.counts) != len(one.edges) + 2 for one in found.features):
            log.warning("a reference is damaged", extra={"path": str(path)})
            return None
        return found

    def _write(self, path: Path, reference: Reference) -> None:
        """Write a file that is not there yet, all of it at once.

        Raises:
            FileExistsError: it is there.
            OSError: it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
        try:
            with os.fdopen(number, "wb") as file:
                file.write(_JSON.dump_json(reference))
            os.link(name, path)
        finally:
            with suppress(OSError):
                Path(name).unlink()
