"""An endpoint: what every process that takes calls has, from the transport to the answers."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inferd_server.cache.making import make_cache
from inferd_server.feedback.keys import TokenKeys
from inferd_server.feedback.making import make_intake
from inferd_server.feedback.tokens import TokenSigner
from inferd_server.inference.cacheable import owners
from inferd_server.inference.handler import Infer
from inferd_server.inference.infer_request import Telemetry
from inferd_server.inference.observers import Observers
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.inference.trailers import Trailers
from inferd_server.memory import IdleHeap
from inferd_server.models.entries import Models
from inferd_server.models.health_check import HealthChecks, TrialVerdict
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.drift.judge import DriftReport
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes.messages import Condition
from inferd_server.rpc.control import (
    Diagnostics,
    Loads,
    Logs,
    ModelControl,
    Regions,
    SharedMemory,
    control_allowed,
)
from inferd_server.rpc.drift import Drift
from inferd_server.rpc.feedback import Feedback
from inferd_server.rpc.handlers import Elsewhere
from inferd_server.rpc.health import HealthBoard
from inferd_server.rpc.load_reports import LoadReports, ServerLoad
from inferd_server.rpc.metadata import Counters, Inspection, ServerState
from inferd_server.rpc.releases import Releases
from inferd_server.rpc.routes import ProbePort, Services, routes, statuses
from inferd_server.security.opening import open_access
from inferd_server.security.refusals import Refusals
from inferd_server.settings.model import Settings
from inferd_server.threads import MOST_CHANGES, BlockingThreads
from inferd_server.transport.call import Transport
from inferd_server.version import VERSION

log = logging.getLogger(__name__)
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Changes:
    """The parts that change or count something of the whole server."""

    loads: Loads
    regions: Regions
    logs: Logs
    counters: Counters
    drift: Callable[[], Sequence[DriftReport]]
    """Returns how requests differ from references; blocks."""
    asking: Elsewhere | None = None
    """Runs the methods that ask other processes; None where there are none."""


class Endpoint:
    """The transport, the services behind it, and what they share. Any thread may call."""

    def __init__(
        self,
        settings: Settings,
        token_keys: TokenKeys,
        transport: Transport,
        models: Models,
        metrics: Metrics,
        condition: Callable[[], Condition],
        judged: Callable[[TrialVerdict], None],
        give_back: Callable[[], None],
        gauges: Callable[[], Mapping[str, float]],
        busy: Callable[[], float],
        probe: Transport | None = None,
        told: Callable[[Condition], None] = lambda _: None,
        clock: Clock = time.monotonic,
        references: References | None = None,
    ) -> None:
        """Put the parts together; nothing listens yet.

        Args:
            settings: checked.
            token_keys: of prediction tokens.
            transport: not started.
            models: that are asked for.
            metrics: told of every request.
            condition: returns what is true of the whole server.
            judged: gets what trials say of a model.
            give_back: returns memory to the system; called when no request came for a while.
            gauges: returns what /metrics tells of the models' side, and of certificates.
            busy: returns how busy the engines are, in 0..1.
            probe: for the port of probes, not started; None if there is none.
            told: gets each condition that is published, in their order.
            clock: monotonic seconds.
            references: of the models, where this process makes them; None: another one does.
        """
        self._settings, self._transport = settings, transport
        self._models, self._metrics = models, metrics
        self._condition, self._told = condition, told
        self._clock, self._started = clock, clock()
        self._health = HealthBoard()
        self._probe = ProbePort(probe, self._health)
        # States are read and told as one step, so that an older one never comes last.
        self._publishing = threading.Lock()
        self._loads, self._unloads = BlockingThreads(MOST_CHANGES), BlockingThreads(MOST_CHANGES)
        # One call after the other, so that the memory of tokens has one connection.
        self._labels = BlockingThreads(1)
        self._cache = make_cache(settings.cache, clock, time.time)
        self._idle_heap = IdleHeap(transport.bounds.traffic, give_back)
        self.regions = RegionTable()
        self.checks = HealthChecks(models, clock, judged, metrics.tried)
        signer = TokenSigner(token_keys, time.time)
        memory = settings.feedback, settings.cache
        self._feedback = make_intake(*memory, signer, models, metrics, clock)
        self._load_reports = LoadReports(lambda: load_of(metrics, models, busy()), clock)
        self.observers = Observers(settings, models, metrics, self.regions, clock, references)
        self.infer = self._infer_of(signer)
        metrics.watch(lambda: {**gauges(), **self._gauges()})

    def _infer_of(self, signer: TokenSigner) -> Infer:
        log_of_errors = BoundedLog(log, self._clock)
        reports = self._settings.listen.load_reports
        return Infer(
            self._models,
            self.regions,
            Telemetry(self._metrics, self._clock, time.time, log_of_errors),
            self._cache,
            signer,
            self.observers.sampling,
            Trailers(self._load_reports.latest if reports else None),
            self.observers.tracing,
        )

    def _gauges(self) -> Mapping[str, float]:
        cache, transport = self._cache.gauges(), self._transport.bounds.gauges()
        return {**cache, **transport, **self.observers.counters()}

    def start(self, address: str, probe_address: str, changes: Changes) -> int:
        """Listen, and return the port of the gRPC services.

        Args:
            address: "host:port" or of a unix socket.
            probe_address: of the port for probes, where there is one.
            changes: where methods change and count.

        Raises:
            StartupError: a port cannot be had, or a file of the security settings be used.
        """
        refusals = Refusals(self._metrics, self._clock)
        access = open_access(self._settings, self._clock, refusals)
        services = self._services(changes)
        self._probe.start(probe_address)
        try:
            port = self._transport.start(
                address,
                routes(
                    services,
                    self._loads.submit,
                    self._unloads.submit,
                    self._labels.submit,
                    changes.asking,
                    access,
                    refusals.of_bounds,
                ),
            )
        except BaseException:
            self._probe.stop()
            raise
        self._idle_heap.start()
        return port

    @property
    def probe_port(self) -> int:
        """Where probes are answered in plaintext; -1 if nowhere."""
        return self._probe.port

    def models_changed(self) -> None:
        """Look every model up anew, and tell health what is true of them now."""
        self.infer.forget()
        self.publish()

    def publish(self) -> None:
        """Tell health and the cache what is true now."""
        with self._publishing:
            now = self._condition()
            entries = self._models.entries()
            self._cache.retain(owners(entries))
            loaded = [e for e in entries if e.handle is not None or e.returning]
            self.observers.drift.retain({(entry.name, entry.version) for entry in loaded})
            self._health.update(statuses(entries, now.ready, now.draining, now.live, sick_of(now)))
            self._told(now)

    def stop(self, grace: float) -> None:
        """Take no more calls, and give those that run `grace` seconds; may be called again."""
        self._idle_heap.stop()
        self._load_reports.stop()
        self._transport.stop(grace)

    def close(self, patience: float) -> bool:
        """Let go of everything; the port for probes last.

        Returns:
            False if a load or an unload still runs after `patience` seconds each.
        """
        self._cache.close()
        if self._labels.stop(patience):
            self._feedback.close()
        self.observers.close()
        ended = self._loads.stop(patience) and self._unloads.stop(patience)
        self._probe.stop()
        return ended

    def _services(self, changes: Changes) -> Services:
        settings, condition, tracing = self._settings, self._condition, self.observers.tracing
        state = ServerState(
            version=VERSION,
            transport=self._transport.name,
            uptime=lambda: self._clock() - self._started,
            ready=lambda: condition().ready,
            draining=lambda: condition().draining,
            live=lambda: condition().live,
            sick=lambda: sick_of(condition()),
        )
        control, says_who = settings.repository.model_control, settings.security.says_who
        allowed = control_allowed(control, settings.listen.host, says_who)
        return Services(
            infer=self.infer if tracing is None else tracing.around(self.infer),
            inspection=Inspection(self._models, state, changes.counters),
            models=ModelControl(changes.loads, allowed),
            memory=SharedMemory(changes.regions),
            diagnostics=Diagnostics(changes.logs, self._models),
            drift=Drift(changes.drift),
            releases=Releases(
                settings.store.model_store,
                settings.store_folder(os.environ),
                settings.store.store_backups,
                settings.seal,
            ),
            health=self._health,
            feedback=Feedback(self._feedback),
            load=self._load_reports,
        )


def load_of(metrics: Metrics, models: Models, busy: float) -> ServerLoad:
    """Return how loaded the server is: what this process answered, and what waits anywhere."""
    handles = [entry.handle for entry in models.entries() if entry.handle is not None]
    rows = float(sum(handle.queue.rows for handle in handles))
    return ServerLoad(busy, *metrics.answers(), {"inferd_waiting_rows": rows})


def sick_of(condition: Condition) -> Mapping[tuple[str, int], str]:
    """Return the versions that do not answer, and why."""
    return {(model, version): why for model, version, why in condition.sick}
