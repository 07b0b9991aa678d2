"""Progress of long transfers: a bar at a terminal, nothing in a pipe."""

from __future__ import annotations

import os
import re
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from inferd_client.cli import main

from tests import models

BAR = re.compile(r"\d+%\|.*B/s\]|\d+(\.\d+)?k?B? \[.*B/s\]")
Ends = Callable[[], tuple[int, int]]


def transfers(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return every operation that moves files, in an order in which each finds something to do."""
    store, place = ("--store", str(folder / "store")), str(folder / "backups")
    file = models.save(models.scale(2.0), folder / "model.onnx")
    return {
        "add": ("add", "m", str(file), *store),
        "promote": ("promote", "m", "1", *store),
        "backup": ("backup", place, *store),
        "verify": ("backups", place, "--verify", *store),
        "restore": ("restore", place, "--store", str(folder / "other")),
    }


def terminal() -> tuple[int, int]:
    ends = os.openpty()
    termios.tcsetwinsize(ends[1], (24, 80))
    return ends


@contextmanager
def stderr_into(ends: Ends, patch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """Let standard error go into one end of something; gives what reads the other."""
    reader, writer = ends()
    os.set_blocking(reader, False)

    def read() -> str:
        sys.stderr.flush()
        found = b""
        with suppress(BlockingIOError):
            while True:
                found += os.read(reader, 1 << 12)
        return found.decode()

    with os.fdopen(writer, "w") as stderr:
        patch.setattr(sys, "stderr", stderr)
        yield read
    os.close(reader)


def test_a_bar_is_shown_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    with stderr_into(terminal, monkeypatch) as read:
        for name, words in transfers(tmp_path).items():
            assert main(["models", *words]) == 0
            shown[name] = read()
    assert {name: text for name, text in shown.items() if not BAR.search(text)} == {}
    # The line is free again for what is printed.
    assert all(text.endswith("\r") for text in shown.values())


def test_nothing_is_shown_in_a_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stderr_into(os.pipe, monkeypatch) as read:
        for words in transfers(tmp_path).values():
            assert main(["models", *words]) == 0
        assert read() == ""
