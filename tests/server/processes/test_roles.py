"""A process is heard only about what is its own: a front cannot speak for the worker."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest
from inferd_server.errors import PermissionDenied
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes import messages
from inferd_server.processes.policy import ServerPlan
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child
from inferd_server.processes.supervisor import Supervisor
from inferd_server.settings.sources import load_settings

from tests.fakes.child import WITHIN, FakeChannel, FakeChild

FORGED = messages.ModelRecord("forged", 1, "READY", "", None)


class Telling(FakeChannel):
    """A channel whose other end sends one message and is silent then."""

    def __init__(self, message: object) -> None:
        super().__init__()
        self.outcome: SimpleQueue[Exception | None] = SimpleQueue()
        self._message = message

    def read(self, handle: Callable[[object], object]) -> None:
        try:
            handle(self._message)
        except Exception as error:
            self.outcome.put(error)
        else:
            self.outcome.put(None)
        super().read(handle)


def outcome(tmp_path: Path, role: str, message: object) -> Exception | None:
    """Return how a supervisor takes a message of a process of this role."""
    channel = Telling(message)
    children = []

    def spawn(kind: str, place: messages.ProcessPlace, inherited: Sequence[int]) -> Child:
        del inherited
        child = FakeChild(kind, place.index)
        if kind == role:
            child.child = Child(kind, place.index, child.process, channel)  # type: ignore[arg-type]
        children.append(child)
        child.channel.reply = channel.reply = lambda _: None
        return child.child

    settings = load_settings(
        {"model_repository": str(tmp_path), "grpc_port": "0", "metrics_port": "0"}, {}
    )
    logs = LogControl(settings.log, io.StringIO())
    fronts, replicas = (0, 1) if role == REPLICA else (1, 0)
    supervisor = Supervisor(settings, logs, ServerPlan(fronts, replicas), lambda: None, spawn)
    supervisor.start()
    try:
        return channel.outcome.get(timeout=WITHIN)
    finally:
        for child in children:
            child.process.kill()
        supervisor.end()


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (FRONT, messages.ModelRecords((FORGED,), settled=True)),
        (FRONT, messages.Loaded(frozenset())),
        (FRONT, messages.WorkerGone("forged")),
        (FRONT, messages.Stop(0.0)),
        (WORKER, messages.RegisterRegion("r", "/key", 0, 1)),
        (WORKER, "anything"),
        (WORKER, messages.Load("m")),
        (REPLICA, messages.Stop(0.0)),
        (REPLICA, messages.Disconnected()),
        (REPLICA, messages.Condition(ready=True, draining=False)),
    ],
)
def test_what_is_not_its_own_is_refused(tmp_path: Path, role: str, message: object) -> None:
    assert isinstance(outcome(tmp_path, role, message), PermissionDenied)


@pytest.mark.parametrize(
    ("role", "message"),
    [
        (FRONT, messages.Ping()),
        (WORKER, messages.ModelRecords((FORGED,), settled=False)),
        (REPLICA, messages.ModelRecords((FORGED,), settled=False)),
        (WORKER, messages.Opened("m")),
        (REPLICA, messages.Opened("m")),
    ],
)
def test_what_is_its_own_is_heard(tmp_path: Path, role: str, message: object) -> None:
    assert outcome(tmp_path, role, message) is None
