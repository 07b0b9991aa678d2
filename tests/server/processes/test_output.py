"""What processes write to their standard error becomes lines of the server's log."""

from __future__ import annotations

import json
import logging
import os
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from inferd_server.processes.output import LONGEST, Output, read_line
from inferd_server.processes.spawn import piped

from tests import models
from tests.server.lifecycle.process import PATIENCE
from tests.server.processes.split import split_process

CORE = "E1126 23:29:16.695847   13733 tcp_server_posix.cc:400] File descriptor limit reached."


@pytest.mark.parametrize(
    ("line", "level", "text", "source"),
    [
        (CORE, logging.ERROR, "File descriptor limit reached.", "tcp_server_posix.cc:400"),
        ("I0101 00:00:00.000001 1 a/b.cc:1] x] y", logging.INFO, "x] y", "a/b.cc:1"),
        ("W0101 00:00:00.000001 1 a.h:1] ", logging.WARNING, "", "a.h:1"),
        ("F0101 00:00:00.000001 1 a.cc:1] Check failed", logging.CRITICAL, "Check failed", None),
        ("terminate called after throwing", logging.ERROR, "terminate called after throwing", ""),
        ("E1126 is no such line", logging.ERROR, "E1126 is no such line", ""),
    ],
)
def test_lines_of_grpc_core_are_told_from_others(
    line: str, level: int, text: str, source: str | None
) -> None:
    said = read_line(line)
    assert (said.level, said.text) == (level, text)
    assert source is None or said.source == source
    assert ("gRPC core" in said.message) == bool(said.source)


def logged(caplog: pytest.LogCaptureFixture, *written: bytes) -> list[str]:
    """Return the texts that are logged of what is written, piece by piece."""
    with piped("front-0") as (writer, output):
        for piece in written:
            while piece:
                try:
                    piece = piece[os.write(writer, piece) :]  # noqa: PLW2901
                except BlockingIOError:
                    continue
    assert output.wait(PATIENCE)
    assert {vars(record)["child"] for record in caplog.records} <= {"front-0"}
    return [str(vars(record)["text"]) for record in caplog.records]


def test_lines_are_whole_however_they_are_written(caplog: pytest.LogCaptureFixture) -> None:
    pieces = b"one\ntwo ", b"goes on\n\n", b"\xff is no text\r\n", b"without an end"
    assert logged(caplog, *pieces) == ["one", "two goes on", "\\xff is no text", "without an end"]


def test_a_line_without_an_end_is_logged_in_parts(caplog: pytest.LogCaptureFixture) -> None:
    texts = logged(caplog, b"x" * (3 * LONGEST))
    assert "".join(texts) == "x" * (3 * LONGEST)
    assert max(map(len, texts)) < 2 * LONGEST


def test_the_last_words_of_a_process_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    code = "import os; os.write(2, b'free(): invalid pointer\\n'); os.abort()"
    with piped("worker") as (writer, output):
        ended = subprocess.run([sys.executable, "-c", code], stderr=writer, check=False)
    assert ended.returncode == -6
    assert output.wait(PATIENCE)
    assert [vars(record)["text"] for record in caplog.records] == ["free(): invalid pointer"]


def test_whoever_writes_is_never_held_up() -> None:
    reader, writer = os.pipe()
    with piped("worker") as (written, _):
        assert not os.get_blocking(written)
    os.close(writer)
    assert Output("worker", reader).wait(PATIENCE)


def test_what_grpc_core_says_of_used_up_descriptors_is_a_line_of_the_log(tmp_path: Path) -> None:
    repository = models.repository(tmp_path, {"scaled": models.scale(2.0)})
    with split_process(repository, "--fronts", "1") as server, ExitStack() as stack:
        pid = server.pids()["front-0"]
        _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        host, port = server.address.split(":")
        stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
        said = server.process.wait_for("gRPC core says")
        assert (said["child"], said["level"]) == ("front-0", "ERROR")
        assert "descriptor" in said["text"].lower()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (hard, hard))
        server.process.terminate()
        assert server.process.exit_code() == 0
        assert all(json.loads(line) for line in server.process.lines)
