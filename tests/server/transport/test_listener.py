"""Wake-ups of gRPC's own threads, read from the kernel and measured over a connection."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from inferd_server.transport.making import listener_wakeups, wakeups
from inferd_server.transport.options import TransportOptions

from tests.server.lifecycle.process import SOURCES
from tests.server.transport.test_choice import Deaf

MEASURE = """
from inferd_server.transport.making import listener_wakeups
from inferd_server.transport.making import make
from inferd_server.transport.options import TransportOptions
print(listener_wakeups(make({name!r}, TransportOptions())))
"""


def task(folder: Path, number: int, comm: str, sleeps: int) -> None:
    path = folder / str(number)
    path.mkdir()
    (path / "comm").write_text(f"{comm}\n")
    switches = f"voluntary_ctxt_switches:\t{sleeps}\nnonvoluntary_ctxt_switches:\t1000\n"
    (path / "status").write_text(f"Name:\t{comm}\n{switches}")


def test_only_the_event_engines_threads_count(tmp_path: Path) -> None:
    task(tmp_path, 1, "python", 1000)
    task(tmp_path, 2, "event_engine", 5)
    task(tmp_path, 3, "event_engine", 7)
    (tmp_path / "4").mkdir()
    assert wakeups(tmp_path) == 12


@pytest.mark.parametrize("name", ["aio", "completion_queue"])
@pytest.mark.parametrize("asked", ["-event_engine_listener", ""])
def test_the_listener_shows_in_the_wake_ups(name: str, asked: str) -> None:
    """In a process of its own: gRPC reads its experiments once."""
    result = subprocess.run(
        [sys.executable, "-c", MEASURE.format(name=name)],
        env={**os.environ, "PYTHONPATH": SOURCES, "GRPC_EXPERIMENTS": asked},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    measured = float(result.stdout)
    assert measured < 0.5 if asked else measured > 1.0


def test_a_transport_that_does_not_start_is_an_error() -> None:
    with pytest.raises(Exception, match="cannot be had"):
        listener_wakeups(Deaf(TransportOptions()))
