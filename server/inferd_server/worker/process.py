"""The worker process: owns the models and engines, and answers the requests of all fronts."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from inferd_engines.engine import EngineError, Opener

from inferd_server.control import messages
from inferd_server.control.channel import Channel, PeerLost
from inferd_server.control.later import after
from inferd_server.control.measurements import Measured
from inferd_server.errors import InferdError
from inferd_server.idle_heap import IdleHeap
from inferd_server.link.memory import LinkMemory
from inferd_server.link.worker_end import WorkerLink
from inferd_server.memory import give_back
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.entries import Entry, gauges
from inferd_server.repository.files import link_roots
from inferd_server.repository.layout import name_of
from inferd_server.repository.loader import Loader
from inferd_server.repository.recovery import Recovery, retry_delay
from inferd_server.repository.repository import Repository
from inferd_server.worker.fatal import end_process
from inferd_server.worker.inbox import Inbox
from inferd_server.worker.row_trials import RowTrials

log = logging.getLogger(__name__)

# For engines to close once every call is over: nobody waits for more.
CLOSE_S = 1.0


class WorkerProcess:
    """The parts of the worker, put together."""

    def __init__(
        self, place: messages.Place, channel: Channel, opener: Opener, logs: LogControl
    ) -> None:
        self._channel = channel
        self._logs = logs
        self._telling = threading.Lock()
        self._untold = False
        # True once everything that is there was tried.
        self._settled = False
        links = [
            WorkerLink(index, LinkMemory(memory, place.layout), wake)
            for index, (memory, wake) in enumerate(zip(place.links, place.wake_fronts, strict=True))
        ]
        self._links = links
        self._idle_heap = IdleHeap(self._traffic, self._give_back)
        self._inbox = Inbox(links, place.wake_worker, time.monotonic)
        self._metrics = Metrics()
        settings, models = place.settings, place.settings.repository
        self._awaits_overrides = place.awaits_overrides
        self._loader = loader = Loader(
            opener,
            settings.batching,
            settings.engine,
            self._metrics,
            time.monotonic,
            queues=self._inbox,
            settle=self._settle,
            trials=RowTrials(
                time.monotonic,
                settings.verdict_folder(os.environ),
                settings.listen.max_message_bytes,
            ),
            roots=partial(link_roots, models.model_repository, models.link_folders),
            end=end_process,
        )
        recovery = Recovery(self._load_one, after, time.monotonic, self._give_up)
        self._folder = models.model_repository
        self._repository = Repository(
            self._folder,
            loader,
            self._tell_models,
            recovery.lost,
            recovery.missing,
            models.concurrent_loads,
        )
        self._wanted = place.wanted
        self._unloaded, self._left_out = place.unloaded, place.left_out
        loader.limit_batches(place.batch_limits)
        self._attempts = 0
        self._metrics.watch_models(lambda: gauges(self._repository.entries()))

    def run(self) -> None:
        """Load the models, and do what is asked until the supervisor is gone."""
        self._inbox.start()
        self._idle_heap.start()
        if not self._awaits_overrides:
            self._begin()
        self._channel.read(self._handle)

    def _begin(self) -> None:
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def reload(self, model: Path) -> None:
        """Load the model of a file anew, because a better engine can serve it now.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        self._repository.reload(name_of(self._folder, model))

    def _load_one(self, name: str) -> None:
        self._repository.restore(name)

    def _give_up(self, name: str) -> None:
        # Another process may do better.
        end_process(EngineError(f"model {name!r} loses its engine again and again"))

    def _load(self) -> None:
        """Load everything; again later, and ever later, where the repository cannot be read."""
        try:
            failed = self._repository.load_all(
                self._wanted, self._logs.progress, self._unloaded, self._left_out
            )
        except InferdError as error:
            self._attempts += 1
            delay = retry_delay(self._attempts)
            where = {"error": str(error), "delay_s": delay}
            log.error("the models could not be loaded; once more later", extra=where)
            failed = frozenset(self._wanted)
            after(delay, self._load)
        self._settled = True
        self._tell_models()
        self._channel.tell(messages.Loaded(failed))

    def _handle(self, message: object) -> object:
        match message:
            case messages.Ping():
                self._channel.tell(message)
            case messages.Attach(link):
                self._inbox.attach(link)
            case messages.Detach(link):
                self._inbox.detach(link)
            case messages.Overrides(overrides):
                self._repository.restore_overrides(overrides)
                self._begin()
            case messages.BatchLimits(rows):
                self._limit_batches(rows)
            case messages.Load(name, override):
                self._repository.load(name, override)
            case messages.Unload(name):
                self._repository.unload(name)
            case _:
                return self._do(message)
        return None

    def _do(self, message: object) -> object:
        """Do or answer what all processes are asked."""
        match message:
            case messages.LogChange(changes):
                self._logs.change(changes)
            case messages.Measurements():
                return self._measure()
            case messages.Stop():
                return self._repository.close(CLOSE_S)
        return None

    def _limit_batches(self, rows: Mapping[tuple[str, int], int]) -> None:
        """Form smaller batches from now on, of models that are loaded already, too."""
        self._loader.limit_batches(rows)
        for entry in self._repository.entries():
            most = rows.get((entry.name, entry.version))
            if most is not None and entry.handle is not None:
                bounds = entry.handle.bounds
                limit = min(most, bounds.limits.max_rows)
                entry.handle.queue.limit(limit, bounds.max_queue_delay)

    def _traffic(self) -> tuple[int, int]:
        found = [link.traffic for link in self._links]
        return sum(total for total, _ in found), sum(held for _, held in found)

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

    def _measure(self) -> Measured:
        handles = [entry.handle for entry in self._repository.entries()]
        return Measured(
            self._metrics.snapshot(),
            {(h.name, h.version): h.statistics.read() for h in handles if h is not None},
        )

    def _tell_models(self) -> None:
        with self._telling:
            self._untold = True
        self._channel.tell_latest(self._latest_models)

    def _latest_models(self) -> messages.Models | None:
        """Return every version as it is now; None if that is told already."""
        with self._telling:
            if not self._untold:
                return None
            self._untold = False
            settled, entries = self._settled, self._repository.entries()
            wanted = self._repository.wanted
        return messages.Models(tuple(record(entry) for entry in entries), settled, wanted)


def record(entry: Entry) -> messages.ModelRecord:
    """Return what other processes need to know of a model version."""
    about = None if entry.handle is None else entry.handle.description()
    return messages.ModelRecord(entry.name, entry.version, entry.state.value, entry.reason, about)
