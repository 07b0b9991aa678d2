"""The models of a process under the supervisor: loaded, told of, and changed as it asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from inferd_engines.engine import EngineError

from inferd_server.batching.fatal import end_process
from inferd_server.errors import InferdError
from inferd_server.models.entries import ModelEntry, State, gauges
from inferd_server.models.layout import name_of
from inferd_server.models.loader import Loader
from inferd_server.models.overrides import Override
from inferd_server.models.recovery import Recovery, retry_delay
from inferd_server.models.repository import Repository
from inferd_server.monitoring.busy import BusyWindow, Share
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.page.numbers import ShownModel
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.messages import Measured
from inferd_server.processes.totals import counted_on
from inferd_server.threads import after

log = logging.getLogger(__name__)

# For engines to close once every call is over: nobody waits for more.
CLOSE_S = 1.0


class ModelHost:
    """The repository of one process, and what the supervisor knows of it. Any thread may call."""

    def __init__(
        self,
        place: messages.ProcessPlace,
        channel: Channel,
        loader: Loader,
        metrics: Metrics,
        progress: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        busy: Callable[[float], None] = lambda _: None,
    ) -> None:
        """Keep how to load; nothing is loaded yet.

        Args:
            place: what the process is.
            channel: to the supervisor.
            loader: opens models.
            metrics: of the process.
            progress: told which model is loaded at the start, in words; "" at the end.
            changed: called after any state changed, before the supervisor is told.
            busy: told every second how busy the engines are.
        """
        self._place = place
        self._channel = channel
        self._metrics = metrics
        self._progress = progress
        self._told = changed
        self._telling = threading.Lock()
        self._untold = False
        self._attempts = 0
        self.settled = False
        """True once everything that is there was tried."""
        loader.limit_batches(place.batch_limits)
        models = place.settings.repository
        recovery = Recovery(self._load_again, after, time.monotonic, self._give_up)
        self.repository = Repository(
            models.model_repository,
            loader,
            self._changed,
            recovery.lost,
            recovery.missing,
            models.concurrent_loads,
        )
        metrics.watch_models(lambda: gauges(self.repository.entries()))
        self.busy = BusyWindow(
            lambda: loader.lines(self.repository.entries()), time.monotonic, busy
        )
        metrics.watch_engines(self._shares)

    def start(self) -> None:
        """Load everything on a thread, once it is known what callers loaded it with."""
        self.busy.start()
        if not self._place.awaits_overrides:
            self._begin()

    def restore(self, overrides: messages.ModelOverrides) -> None:
        """Take what callers loaded models with in the process before this one, and load."""
        self.repository.restore_overrides(overrides.overrides)
        self._begin()

    def load(self, name: str, override: Override | None) -> None:
        """Load a model together with the other processes that have it; blocks.

        Raises:
            InferdError: it cannot be loaded here, or another process could not.
        """
        self.repository.load(name, override, AgreementOfAll(self._channel, name))

    def reload(self, model: Path) -> None:
        """Load the model of a file anew, because a better engine can serve it now.

        Raises:
            InferdError: it cannot be loaded; what serves goes on.
        """
        folder = self._place.settings.repository.model_repository
        self.repository.reload(name_of(folder, model))

    def measure(self) -> Measured:
        """Return what was counted so far."""
        handles = [entry.handle for entry in self.repository.entries()]
        metrics = self._metrics.snapshot()
        if self._place.device:
            metrics = replace(metrics, devices=counted_on(self._place.device, metrics))
        return Measured(
            metrics,
            {(h.name, h.version): h.statistics.read() for h in handles if h is not None},
        )

    def _shares(self) -> Mapping[str, Share]:
        """Return how busy the engines are; those that take turns do so for one GPU."""
        return {line or self._place.device: share for line, share in self.busy.shares().items()}

    def _begin(self) -> None:
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def _load(self) -> None:
        """Load everything; again later, and ever later, where the repository cannot be read."""
        place = self._place
        try:
            failed = self.repository.load_all(
                place.wanted, self._progress, place.unloaded, place.left_out, place.held
            )
        except InferdError as error:
            self._attempts += 1
            delay = retry_delay(self._attempts)
            where = {"error": str(error), "delay_s": delay}
            log.error("the models could not be loaded; once more later", extra=where)
            failed = frozenset(place.wanted)
            after(delay, self._load)
        self.settled = True
        self._changed()
        self._channel.tell(messages.Loaded(failed))

    def _load_again(self, name: str) -> None:
        self.repository.restore(name)

    def _give_up(self, name: str) -> None:
        # Another process may do better.
        end_process(EngineError(f"model {name!r} loses its engine again and again"))

    def _changed(self) -> None:
        self._told()
        with self._telling:
            self._untold = True
        self._channel.tell_latest(self._latest)

    def _latest(self) -> messages.ModelRecords | None:
        """Return every version as it is now; None if that is told already."""
        with self._telling:
            if not self._untold:
                return None
            self._untold = False
            settled, entries = self.settled, self.repository.entries()
            wanted, labels = self.repository.wanted, self.repository.labels
        records = tuple(record(entry) for entry in entries)
        return messages.ModelRecords(records, settled, wanted, labels)


@dataclass(frozen=True, slots=True)
class AgreementOfAll:
    """The agreement of all processes that load a model, by way of the supervisor."""

    channel: Channel
    name: str
    """Of the model."""

    def opened(self) -> None:
        """Wait until every one has opened the model.

        Raises:
            InferdError: another one could not.
        """
        self.channel.ask(messages.Opened(self.name)).result()

    def taking(self) -> None:
        """Wait until every one takes requests for the model."""
        self.channel.ask(messages.Taking(self.name)).result()


def shown(
    records: Iterable[messages.ModelRecord], sick: Iterable[tuple[str, int, str]]
) -> list[ShownModel]:
    """Return the models as the page shows them.

    Args:
        records: of all of them.
        sick: name, version and why, of those that are loaded and do not answer.
    """
    reasons = {(name, version): why for name, version, why in sick}
    found = []
    for one in records:
        about, why = one.description, reasons.get((one.name, one.version))
        state = one.state if why is None else State.UNAVAILABLE.value
        model = ShownModel(one.name, one.version, state, why or one.reason)
        if about is not None:
            model = replace(
                model,
                engine=about.engine,
                engine_reason=about.engine_reason,
                plan_state=about.plan_state,
                batch_reason=about.batch_reason,
            )
        found.append(model)
    return found


def record(entry: ModelEntry) -> messages.ModelRecord:
    """Return what other processes need to know of a model version."""
    about = None if entry.handle is None else entry.handle.description()
    return messages.ModelRecord(entry.name, entry.version, entry.state.value, entry.reason, about)
