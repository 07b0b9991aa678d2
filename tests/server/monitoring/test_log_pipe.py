"""A log whose reader does not read holds nobody up, and tells afterwards what is missing."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.model import LogSettings

log = logging.getLogger("inferd_server.test")
ROOM = 4096


class Pipe:
    """A log that goes into a pipe with little room."""

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, ROOM)
        self.stream = os.fdopen(writer, "w")
        os.set_blocking(self._reader, False)
        self._text = b""

    def read(self) -> None:
        """Take out what is there."""
        self._text += os.read(self._reader, 1 << 20)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All that was read so far; every line is whole."""
        return [json.loads(line) for line in self._text.splitlines()]

    def hang_up(self) -> None:
        """Read no more."""
        os.close(self._reader)


@contextmanager
def logged() -> Iterator[Pipe]:
    pipe = Pipe()
    control = LogControl(LogSettings(log_format="json"), pipe.stream, part="front-0")
    control.start()
    try:
        yield pipe
    finally:
        control.stop()
        pipe.stream.close()


def test_lines_that_nobody_takes_are_lost_and_counted() -> None:
    with logged() as pipe:
        for number in range(100):
            log.info("a line of some length", extra={"number": number, "more": "x" * 100})
        pipe.read()
        kept = len(pipe.lines)
        assert [line["number"] for line in pipe.lines] == list(range(kept))
        log.info("last")
        pipe.read()
        told, last = pipe.lines[kept:]
        assert (told["level"], told["lost"], told["part"]) == ("WARNING", 100 - kept, "front-0")
        assert last["message"] == "last"
        pipe.hang_up()


def test_a_line_longer_than_the_room_arrives_whole() -> None:
    with logged() as pipe:
        log.info("x" * 3 * ROOM)
        for _ in range(4):
            pipe.read()
            log.info("next")
        pipe.read()
        assert pipe.lines[0]["message"] == "x" * 3 * ROOM
        assert pipe.lines[-1]["message"] == "next"
        pipe.hang_up()


def test_a_reader_that_is_gone_is_no_error() -> None:
    with logged() as pipe:
        pipe.hang_up()
        log.info("nobody hears")


def test_a_file_is_written_as_ever(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "log").open("w") as file:
        control = LogControl(LogSettings(log_format="json"), file)
        control.start()
        log.info("a line")
        control.stop()
    assert json.loads((tmp_path / "log").read_text())["message"] == "a line"
    assert capfd.readouterr().err == ""
