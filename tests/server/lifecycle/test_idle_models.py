"""What over a thousand models cost that nobody calls; `--log-cli-level info` shows it."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import pytest

from tests import models
from tests.server.lifecycle import process as server_process
from tests.server.lifecycle.process import ready_process

log = logging.getLogger(__name__)
MODELS = 1300
PATIENCE = 900.0
QUIET_S = 20.0
CORE = 0.01
"""Part of a core that trials may take."""
STOP_S = 2.0
BUSY = 3
"""A machine that others use may take so many times as long."""


@pytest.mark.slow
@pytest.mark.timeout(2 * PATIENCE)
@pytest.mark.parametrize("processes", ["inline", "threads"])
def test_many_idle_models_take_a_hundredth_of_a_core_few_threads_and_end_at_once(
    processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_process, "PATIENCE", PATIENCE)
    repository = models.repository(
        tmp_path, {f"model{number:04}": models.scale(2.0) for number in range(MODELS)}
    )
    with ready_process(repository, "--processes", processes) as (process, _):
        before = seconds(process.pid)
        # Time itself is what is measured: nothing tells that a server was left alone.
        threading.Event().wait(QUIET_S)
        core = (seconds(process.pid) - before) / QUIET_S
        threads = sum(1 for _ in Path(f"/proc/{process.pid}/task").iterdir())
        begun = time.monotonic()
        process.terminate()
        assert process.exit_code() == 0
        took = time.monotonic() - begun
    log.info("%s: %.2f %% of a core, %d threads, %.1f s", processes, core * 100, threads, took)
    assert core <= BUSY * CORE
    assert threads < 50
    assert took <= BUSY * STOP_S


def seconds(pid: int) -> float:
    """Return the processor time of a process. Source: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
