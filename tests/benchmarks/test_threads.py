"""Processor time by thread is told by role, and what is little of it together."""

from __future__ import annotations

import os

import pytest

from benchmarks.threads import processor_ns, role_of, told


@pytest.mark.parametrize(
    ("command", "first", "role"),
    [
        (["python", "-m", "inferd_server", "--processes", "split"], True, "server"),
        (["python", "-m", "inferd_server.processes.child", "front", "7", "8"], False, "front"),
        (["python", "-c", "from multiprocessing import resource_tracker"], False, "other"),
    ],
)
def test_a_process_is_told_by_what_it_was_started_as(
    command: list[str], first: bool, role: str
) -> None:
    assert role_of(command, first) == role


def test_threads_that_take_little_are_added_up_and_processes_numbered() -> None:
    used = {
        ("front 70", "0 main"): 0.25,
        ("front 70", "9 python"): 20.0,
        ("front 70", "4 event_engine"): 0.5,
        ("front 71", "9 python"): 30.0,
        ("server 60", "0 main"): 0.1,
        ("load generator", ""): 0.4,
    }
    assert told(used) == {
        ("front 1", "9 python"): 20.0,
        ("front 1", "others"): 0.75,
        ("front 2", "9 python"): 30.0,
        ("server", "others"): 0.1,
        ("load generator", ""): 0.4,
    }


def test_the_kernel_tells_what_threads_have_had() -> None:
    before = processor_ns([os.getpid()], os.getpid())
    sum(range(1_000_000))
    after = processor_ns([os.getpid()], os.getpid())
    assert (f"server {os.getpid()}", "0 main") in before
    # Not always the main one runs tests.
    assert sum(after.values()) > sum(before.values())
