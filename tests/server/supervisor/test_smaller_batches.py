"""A batch that used up the memory: the next worker knows its bound before it serves anybody."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue

import pytest
from inferd_server.control import messages
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.sources import load_settings
from inferd_server.supervisor import supervisor as module
from inferd_server.supervisor.spawn import FRONT, WORKER, Child
from inferd_server.supervisor.supervisor import Supervisor
from inferd_server.supervisor.worker_deaths import WorkerDeaths

from tests.fakes.child import WITHIN, FakeChannel, FakeChild

M = ("m", 1)


class Speaking(FakeChannel):
    """A channel whose other end says what the test wants."""

    def __init__(self) -> None:
        super().__init__()
        self.says: SimpleQueue[object] = SimpleQueue()

    def read(self, handle: Callable[[object], object]) -> None:
        threading.Thread(target=self._say, args=(handle,), daemon=True).start()
        super().read(handle)

    def _say(self, handle: Callable[[object], object]) -> None:
        while True:
            handle(self.says.get())


class Bench:
    """A supervisor over doubles, in whose group the kernel counts every death."""

    def __init__(self, folder: Path) -> None:
        self.spawned: SimpleQueue[tuple[FakeChild, messages.Place]] = SimpleQueue()
        self.made: list[FakeChild] = []
        flags = {"model_repository": str(folder), "grpc_port": "0", "metrics_port": "0"}
        settings = load_settings(flags, {})
        logs = LogControl(settings.log, io.StringIO())
        self.supervisor = Supervisor(settings, logs, 1, lambda: None, self.spawn)
        self.supervisor.start()

    def spawn(self, role: str, place: messages.Place, inherited: Sequence[int]) -> Child:
        del inherited
        made = FakeChild(role, place.index)
        channel = Speaking()
        channel.reply = lambda _: None
        made.channel = channel
        made.child = Child(role, place.index, made.process, channel)  # type: ignore[arg-type]
        self.made.append(made)
        self.spawned.put((made, place))
        return made.child

    def next(self, role: str) -> tuple[FakeChild, messages.Place]:
        while True:
            made, place = self.spawned.get(timeout=WITHIN)
            if made.child.role == role:
                return made, place

    def close(self) -> None:
        for child in self.made:
            child.process.kill()
        self.supervisor.end()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(module, "WorkerDeaths", lambda: WorkerDeaths(lambda: None))
    made = Bench(tmp_path)
    yield made
    made.close()


def hears(child: FakeChild, *kinds: type) -> object:
    """Return the next message of some kinds that a process was told."""
    while not isinstance(message := child.hears(), kinds):
        pass
    return message


def test_the_next_worker_is_told_before_it_gets_a_request_and_those_after_it_at_the_start(
    bench: Bench,
) -> None:
    worker, place = bench.next(WORKER)
    front, _ = bench.next(FRONT)
    assert place.batch_limits == {}
    assert isinstance(hears(worker, messages.Attach), messages.Attach)
    worker.die()
    assert isinstance(hears(front, messages.WorkerGone), messages.WorkerGone)
    second, _ = bench.next(WORKER)
    assert isinstance(front.channel, Speaking)
    front.channel.says.put(messages.Disconnected({M: 8}))
    told = hears(second, messages.BatchLimits, messages.Attach)
    assert told == messages.BatchLimits({M: 4})
    assert hears(second, messages.BatchLimits, messages.Attach) == messages.Attach(0)
    second.die()
    _, place = bench.next(WORKER)
    assert place.batch_limits == {M: 4}
