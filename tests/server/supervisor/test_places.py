"""What a process is told when it starts: of a device, and of what callers changed before."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest
from inferd_server.control import messages
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.sources import load_settings
from inferd_server.supervisor.spawn import FRONT, WORKER, Child
from inferd_server.supervisor.supervisor import Supervisor

from tests.fakes.child import WITHIN, FakeChild


def places(folder: Path, quiet: bool = False, **flags: str) -> dict[str, messages.Place]:
    """Start a supervisor and return the places of its processes."""
    told: SimpleQueue[tuple[str, messages.Place]] = SimpleQueue()
    children = []

    def spawn(role: str, place: messages.Place, inherited: Sequence[int]) -> Child:
        del inherited
        children.append(FakeChild(role, place.index))
        children[-1].channel.reply = lambda _: None
        told.put((role, place))
        return children[-1].child

    ports = {"grpc_port": "0", "metrics_port": "0"}
    settings = load_settings({"model_repository": str(folder), **ports, **flags}, {})
    logs = LogControl(settings.log, io.StringIO())
    logs.start()
    supervisor = Supervisor(settings, logs, 1, lambda: None, spawn)
    try:
        if quiet:
            logs.change({"log_info": False})
        supervisor.start()
        return dict(told.get(timeout=WITHIN) for _ in range(2))
    finally:
        for child in children:
            child.process.kill()
        supervisor.end()
        logs.stop()


@pytest.mark.parametrize(
    ("flags", "device"),
    [
        ({}, False),
        ({"engine_providers": "CPUExecutionProvider"}, False),
        ({"engine_providers": "CUDAExecutionProvider"}, True),
        ({"plan_store": "/plans"}, True),
    ],
)
def test_a_front_is_told_whether_a_device_may_read_its_memory(
    tmp_path: Path, flags: dict[str, str], device: bool
) -> None:
    assert places(tmp_path, **flags)[FRONT].device is device


@pytest.mark.parametrize("quiet", [True, False])
def test_a_process_is_told_what_is_logged_now(tmp_path: Path, quiet: bool) -> None:
    found = places(tmp_path, quiet)
    assert [found[role].logs["log_info"] for role in (WORKER, FRONT)] == [not quiet] * 2
