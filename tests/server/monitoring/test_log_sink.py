"""A log whose reader does not read holds nobody up, and tells afterwards what is missing."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from inferd_server.monitoring.log_sink import LineHandler, ThreadSink, never_wait
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


class Full:
    """A log into something that nobody empties, of some kind."""

    def __init__(self, kind: str) -> None:
        if kind == "terminal":
            self._reader, writer = os.openpty()
        elif kind == "pipe":
            self._reader, writer = os.pipe()
        else:
            one, other = socket.socketpair()
            self._reader, writer = one.detach(), other.detach()
        self.stream = os.fdopen(writer, "w")

    def read(self, until: str) -> str:
        """Take out what is there, as far as some text."""
        data = b""
        while until.encode() not in data:
            data += os.read(self._reader, 1 << 16)
        return data.decode()

    def close(self) -> None:
        self.stream.close()
        os.close(self._reader)


@pytest.mark.parametrize("kind", ["terminal", "socket"])
def test_no_kind_of_log_holds_anybody_up_and_what_is_lost_is_counted(kind: str) -> None:
    full = Full(kind)
    control = LogControl(LogSettings(log_format="text"), full.stream)
    control.start()
    try:
        # More than any of them has room for.
        for number in range(4000):
            log.info("a line", extra={"number": number, "more": "x" * 1000})
        reader = threading.Thread(target=full.read, args=("told it",), daemon=True)
        reader.start()
        while reader.is_alive():
            log.info("told it")
    finally:
        control.stop()
        full.close()


@pytest.mark.parametrize("kind", ["terminal", "pipe", "socket"])
def test_what_native_code_writes_by_itself_arrives_and_never_waits(kind: str) -> None:
    """Others who have the same pipe or terminal wait as they did before."""
    full = Full(kind)
    descriptor = full.stream.fileno()
    other = os.dup(descriptor)
    never_wait(descriptor)
    os.write(descriptor, b"last words\n")
    assert full.read("\n").split() == ["last", "words"]
    with suppress(BlockingIOError):
        while True:
            os.write(descriptor, b"x" * 1000)
    assert os.get_blocking(other)
    os.close(other)
    full.close()


def test_a_file_takes_what_native_code_writes_as_ever(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        never_wait(file.fileno())
        os.write(file.fileno(), b"last words")
    assert (tmp_path / "log").read_bytes() == b"last words"


def test_the_lines_that_a_socket_did_not_take_are_told() -> None:
    full = Full("socket")
    control = LogControl(LogSettings(log_format="json"), full.stream)
    control.start()
    for number in range(2000):
        log.info("a line", extra={"number": number, "more": "x" * 1000})
    lines = full.read("\n").splitlines()
    os.set_blocking(full._reader, False)
    try:
        while data := os.read(full._reader, 1 << 20).decode():
            lines[-1:] = (lines[-1] + data).splitlines() if lines else data.splitlines()
    except BlockingIOError:
        pass
    log.info("last")
    told, last = [json.loads(line) for line in os.read(full._reader, 1 << 20).splitlines()[-2:]]
    assert told["lost"] > 0
    assert last["message"] == "last"
    control.stop()
    full.close()


def test_a_pipe_that_cannot_be_opened_anew_is_left_to_a_thread() -> None:
    reader, writer = os.pipe()
    sink = ThreadSink(writer)
    handler = LineHandler(sink)
    for number in range(5000):
        handler.emit(logging.makeLogRecord({"msg": f"{number:4} " + "x" * 1000}))
    assert os.read(reader, 5).decode() == "   0 "
    os.close(reader)
    handler.close()


def test_a_thread_writes_what_waits_before_the_end() -> None:
    reader, writer = os.pipe()
    sink = ThreadSink(writer)
    assert sink.write(b"last words") == 10
    sink.close()
    assert os.read(reader, 100) == b"last words"
    os.close(reader)
    with pytest.raises(BlockingIOError):
        sink.write(b"more")


def test_a_full_disk_loses_lines_and_holds_nobody_up(capfd: pytest.CaptureFixture[str]) -> None:
    with Path("/dev/full").open("w") as file:
        control = LogControl(LogSettings(log_format="json"), file)
        control.start()
        log.info("lost")
        control.stop()
    assert capfd.readouterr().err == ""


def test_without_standard_error_nothing_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    control = LogControl(LogSettings(log_format="auto"))
    control.start()
    log.info("nobody hears")
    control.progress("loading")
    control.stop()


def test_progress_stands_below_the_lines_of_a_terminal() -> None:
    full = Full("terminal")
    control = LogControl(LogSettings(log_format="text"), full.stream)
    control.start()
    control.progress("loading 1 of 2: a")
    log.info("something else")
    control.progress("")
    log.info("done")
    shown = full.read("done").split("\x1b[K")
    assert [line.partition("INFO ")[2] or line for line in shown if line.strip()] == [
        "loading 1 of 2: a\r",
        "something else\r\nloading 1 of 2: a\r",
        "done\r\n",
    ]
    control.stop()
    full.close()


def test_progress_is_shown_on_terminals_only() -> None:
    with logged() as pipe:
        control = LogControl(LogSettings(), pipe.stream)
        control.progress("loading 1 of 2: a")
        log.info("a line")
        pipe.read()
        assert [line["message"] for line in pipe.lines] == ["a line"]
        control.stop()
        pipe.hang_up()


def test_a_file_is_written_as_ever(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    with (tmp_path / "log").open("w") as file:
        control = LogControl(LogSettings(log_format="json"), file)
        control.start()
        log.info("a line")
        control.stop()
    assert json.loads((tmp_path / "log").read_text())["message"] == "a line"
    assert capfd.readouterr().err == ""
