"""What fails around a server: its log cannot be written, the wall clock jumps."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from inferd_client import Client

from tests import models
from tests.balancing.cluster import free_ports
from tests.server.lifecycle.process import PATIENCE, clean_environment

SPLIT = ("--processes", "split", "--fronts", "2")
JUMPS = ("+3600", "-7200", "+3600")
"""Seconds that the wall clock is off by, one after the other."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.repository(tmp_path_factory.mktemp("models"), {"scaled": models.scale(2.0)})


@contextmanager
def serving(
    repository: Path, log: IO[str], flags: Sequence[str] = (), **environment: str
) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Start a server whose log goes to a file; it may say nothing, so its ports are chosen."""
    port, metrics = free_ports(2)
    command = [
        *(sys.executable, "-m", "inferd_server", "--model-repository", str(repository)),
        *("--grpc-port", str(port), "--metrics-port", str(metrics), "--log-format", "json"),
        *flags,
    ]
    process = subprocess.Popen(
        command, stderr=log, text=True, env=clean_environment() | environment
    )
    try:
        with Client(f"127.0.0.1:{port}", timeout=PATIENCE / 2, retries=False) as client:
            client.wait_until_ready(PATIENCE)
            yield process, client
    finally:
        process.kill()
        process.wait(PATIENCE)


def ask(client: Client, times: int = 50) -> None:
    """Every request is answered, and right."""
    for value in range(times):
        result = client.infer("scaled", INPUT0=np.full((1, 4), value, np.float32))
        assert result["OUTPUT0"].tolist() == [[2.0 * value] * 4]


@pytest.mark.parametrize("flags", [(), SPLIT], ids=["one process", "split"])
def test_a_server_whose_log_cannot_be_written_serves_and_ends_well(
    repository: Path, flags: Sequence[str]
) -> None:
    with Path("/dev/full").open("w") as full, serving(repository, full, flags) as (process, client):
        ask(client)
        process.terminate()
        assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize("flags", [(), SPLIT], ids=["one process", "split"])
def test_a_server_whose_log_nobody_reads_loads_models_and_ends_well(
    repository: Path, flags: Sequence[str]
) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with os.fdopen(writer, "w") as stuck, serving(repository, stuck, flags) as (process, client):
        for _ in range(30):
            client.load("scaled")
        ask(client)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    os.close(reader)


def faketime() -> Path:
    """Return the library of Debian's package faketime, which shifts one process's clock."""
    if shutil.which("faketime") is None:
        pytest.skip("faketime is not installed")
    return next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))


@pytest.mark.parametrize("transport", ["completion_queue", "aio"])
def test_a_wall_clock_that_jumps_fails_no_request(
    repository: Path, tmp_path: Path, transport: str
) -> None:
    clock, log = tmp_path / "clock", tmp_path / "log"
    clock.write_text("+0\n")
    # Its monotonic clock goes on, as a machine's does when somebody sets the time.
    shifted = {"FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    shifted |= {"LD_PRELOAD": str(faketime()), "DONT_FAKE_MONOTONIC": "1"}
    flags = ("--transport", transport)
    with log.open("w") as file, serving(repository, file, flags, **shifted) as (process, client):
        for jump in JUMPS:
            clock.write_text(f"{jump}\n")
            ask(client)
        process.terminate()
        assert process.wait(PATIENCE) == 0
    last = json.loads(log.read_text().splitlines()[-1])["time"]
    assert datetime.fromisoformat(last).timestamp() - time.time() > 3000, "the clock never jumped"
