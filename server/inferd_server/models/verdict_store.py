"""Verdicts on models' rows, kept in files so that the next start does not try them again."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from inferd_server.models.row_verdict import Finding, RowVerdict

log = logging.getLogger(__name__)

METHOD = 2
"""Counts the ways of trying: verdicts of another one do not hold any more."""


class VerdictStore:
    """A folder with one JSON file for each verdict. It may be read-only, or not there at all."""

    def __init__(self, folder: Path | None) -> None:
        """Keep the folder; None keeps nothing."""
        self._folder = folder

    @property
    def kept(self) -> bool:
        """True if there is a folder to look into."""
        return self._folder is not None

    def find(self, key: str) -> RowVerdict | None:
        """Return the verdict that was kept; None if there is none, or none that can be read."""
        if self._folder is None:
            return None
        try:
            held = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            return read_verdict(held)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("a verdict on rows cannot be read", extra={"why": str(error)})
            return None

    def keep(self, key: str, verdict: RowVerdict, about: Mapping[str, str]) -> None:
        """Keep a verdict, if that can be.

        Args:
            key: by which it is found again.
            verdict: to be kept.
            about: what it holds for, for people who read the file.
        """
        if self._folder is None:
            return
        held = {
            **about,
            "finding": verdict.finding.value,
            "reason": verdict.reason,
            "runs": verdict.runs,
            "fitting": verdict.fitting,
        }
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"{key}.json", json.dumps(held, indent=2) + "\n")
        except OSError as error:
            log.info("a verdict on rows is not kept", extra={"why": str(error)})


def read_verdict(held: Mapping[str, object]) -> RowVerdict:
    """Return the verdict that a file holds.

    Raises:
        ValueError: it holds another finding.
        TypeError: it holds something else.
        KeyError: it lacks something.
    """
    reason, runs, fitting = held["reason"], held["runs"], held["fitting"]
    if not (isinstance(reason, str) and isinstance(runs, int) and isinstance(fitting, int)):
        raise TypeError("not a verdict")
    return RowVerdict(Finding(held["finding"]), reason, runs, fitting)


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        OSError: not at all.
    """
    number, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(number, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
