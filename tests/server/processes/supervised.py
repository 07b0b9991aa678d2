"""A supervisor over doubles for its processes, which say what a test wants."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from inferd_engines.devices import Device
from inferd_server.errors import InferdError
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.processes import messages
from inferd_server.processes.policy import ServerPlan
from inferd_server.processes.spawn import Child
from inferd_server.processes.supervisor import Supervisor
from inferd_server.settings.sources import load_settings

from tests.fakes.child import WITHIN, FakeChannel, FakeChild


class Speaking(FakeChannel):
    """A channel whose other end says what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.says: SimpleQueue[object] = SimpleQueue()
        self.refusals: SimpleQueue[InferdError] = SimpleQueue()

    def read(self, handle: Callable[[object], object]) -> None:
        threading.Thread(target=self._say, args=(handle,), daemon=True).start()
        super().read(handle)

    def _say(self, handle: Callable[[object], object]) -> None:
        while True:
            try:
                handle(self.says.get())
            except InferdError as error:
                self.refusals.put(error)


class Bench:
    """A supervisor, and the processes that it starts."""

    def __init__(
        self,
        folder: Path,
        fronts: int = 1,
        replicas: int = 0,
        devices: Sequence[Device] = (),
        **settings: str,
    ) -> None:
        self.spawned: SimpleQueue[tuple[FakeChild, messages.ProcessPlace]] = SimpleQueue()
        self.made: list[FakeChild] = []
        self.failed = threading.Event()
        flags = {"model_repository": str(folder), "grpc_port": "0", "metrics_port": "0"}
        loaded = load_settings(flags | settings, {})
        logs = LogControl(loaded.log, io.StringIO())
        plan = ServerPlan(fronts, replicas, devices)
        self.supervisor = Supervisor(loaded, logs, plan, self.failed.set, self.spawn)
        self.supervisor.start()

    def spawn(self, role: str, place: messages.ProcessPlace, inherited: Sequence[int]) -> Child:
        del inherited
        made = FakeChild(role, place.index)
        channel = Speaking()
        channel.reply = reply
        made.channel = channel
        made.child = Child(  # type: ignore[call-arg]
            role,
            place.index,
            made.process,
            channel,
            alone=place.alone,  # type: ignore[arg-type]
        )
        self.made.append(made)
        self.spawned.put((made, place))
        return made.child

    def next(self, role: str) -> tuple[FakeChild, messages.ProcessPlace]:
        while True:
            made, place = self.spawned.get(timeout=WITHIN)
            if made.child.role == role:
                return made, place

    def close(self) -> None:
        for child in self.made:
            child.process.kill()
        self.supervisor.end()


def reply(message: object) -> object:
    """Answer as a process that has counted nothing and does whatever it is asked."""
    counts = isinstance(message, messages.Measurements)
    return messages.Measured(MetricsSnapshot(), {}) if counts else None


def hears(child: FakeChild, *kinds: type) -> object:
    """Return the next message of some kinds that a process was told."""
    while not isinstance(message := child.hears(), kinds):
        pass
    return message
