"""A worker process: owns models and engines, and answers the requests of all fronts."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from inferd_engines.engine import Opener

from inferd_server.batching.fatal import end_process
from inferd_server.memory import IdleHeap, give_back
from inferd_server.models.loader import loader_of
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel, PeerLost
from inferd_server.processes.inbox import Inbox
from inferd_server.processes.link.memory import LinkMemory
from inferd_server.processes.link.worker_end import WorkerLink
from inferd_server.processes.model_host import CLOSE_S, ModelHost

log = logging.getLogger(__name__)


class WorkerProcess:
    """The parts of the worker, put together."""

    def __init__(
        self, place: messages.ProcessPlace, channel: Channel, opener: Opener, logs: LogControl
    ) -> None:
        self._channel = channel
        self._logs = logs
        links = [
            WorkerLink(front, LinkMemory(memory, place.layout, inputs), wake)
            for front, (memory, inputs, wake) in enumerate(
                zip(place.links, place.inputs, place.wake_fronts, strict=True)
            )
        ]
        self._links = links
        self._idle_heap = IdleHeap(self._traffic, self._give_back)
        self._inbox = Inbox(links, place.wake_workers[0], time.monotonic)
        metrics = Metrics(lines=logs.recent)
        self._loader = loader_of(
            place.settings,
            opener,
            metrics,
            time.monotonic,
            end=end_process,
            queues=self._inbox,
            settle=self._settle,
        )
        self._host = ModelHost(
            place, channel, self._loader, metrics, logs.progress, busy=self._tell_busy
        )

    def run(self) -> None:
        """Load the models, and do what is asked until the supervisor is gone."""
        self._inbox.start()
        self._idle_heap.start()
        self._host.start()
        self._channel.read(self._handle)

    def reload(self, model: Path) -> None:
        """Load the model of a file anew, because a better engine can serve it now.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        self._host.reload(model)

    def _handle(self, message: object) -> object:
        match message:
            case messages.Ping():
                self._channel.tell(message)
            case messages.Attach(link):
                self._inbox.attach(link)
            case messages.Detach(link):
                self._inbox.detach(link)
            case messages.ModelOverrides():
                self._host.restore(message)
            case messages.BatchLimits(rows):
                self._limit_batches(rows)
            case messages.Load(name, override):
                self._host.load(name, override)
            case messages.Unload(name):
                self._host.repository.unload(name)
            case _:
                return self._do(message)
        return None

    def _do(self, message: object) -> object:
        """Do or answer what all processes are asked."""
        match message:
            case messages.LogChange(changes):
                self._logs.change(changes)
            case messages.Measurements():
                return self._host.measure()
            case messages.Stop():
                return self._host.repository.close(CLOSE_S)
        return None

    def _limit_batches(self, rows: Mapping[tuple[str, int], int]) -> None:
        """Form smaller batches from now on, of models that are loaded already, too."""
        self._loader.limit_batches(rows)
        for entry in self._host.repository.entries():
            most = rows.get((entry.name, entry.version))
            if most is not None and entry.handle is not None:
                bounds = entry.handle.bounds
                limit = min(most, bounds.limits.max_rows)
                entry.handle.queue.limit(limit, bounds.max_queue_delay)

    def _traffic(self) -> tuple[int, int]:
        found = [link.traffic for link in self._links]
        return sum(total for total, _ in found), sum(held for _, held in found)

    def _tell_busy(self, ratio: float) -> None:
        for link in self._links:
            link.tell_busy(ratio)

    def _give_back(self) -> None:
        for link in self._links:
            link.trim()
        give_back()

    def _settle(self) -> None:
        try:
            self._channel.ask(messages.Caught()).result()
        except PeerLost:
            # So are the fronts, and this process ends.
            log.info("nobody is left to be told")
