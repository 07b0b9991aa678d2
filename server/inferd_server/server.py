"""A server put together from its parts, started and stopped."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from inferd_engines.engine import Opener

from inferd_server.address import beside, join_address
from inferd_server.cache.making import make_cache
from inferd_server.control.blocking import MOST_CHANGES, BlockingThreads
from inferd_server.control.later import after
from inferd_server.errors import SettingsError
from inferd_server.front.cacheable import owners
from inferd_server.front.canary import Canaries
from inferd_server.front.control import Diagnostics, ModelControl, SharedMemory
from inferd_server.front.health import HealthBoard
from inferd_server.front.infer import Infer
from inferd_server.front.inspection import Inspection, ServerState, own_counters
from inferd_server.front.outcome import Telemetry
from inferd_server.front.probing import ProbePort
from inferd_server.front.regions import RegionTable
from inferd_server.front.routes import Services, routes, statuses
from inferd_server.front.sick import SickModels
from inferd_server.front.verdict import Verdict
from inferd_server.idle_heap import IdleHeap
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.repository.control import control_allowed
from inferd_server.repository.entries import gauges
from inferd_server.repository.files import link_roots
from inferd_server.repository.load_marks import LoadMarks
from inferd_server.repository.loader import Loader
from inferd_server.repository.readiness import (
    enough_serve,
    not_serving,
    still_missing,
    why_not_ready,
)
from inferd_server.repository.recovery import Recovery, retry_delay
from inferd_server.repository.repository import Repository, State
from inferd_server.security.opening import open_access
from inferd_server.security.refusals import Refusals
from inferd_server.settings.model import Settings
from inferd_server.transport.call import Transport
from inferd_server.transport.listening import check_host
from inferd_server.version import VERSION
from inferd_server.worker.inline import InlineLoop
from inferd_server.worker.row_trials import RowTrials

log = logging.getLogger(__name__)

# For engines to close once every call is over: nobody waits for more.
CLOSE_S = 1.0


class Server:
    """One process: transport, front, scheduler and engines."""

    def __init__(
        self,
        settings: Settings,
        opener: Opener,
        transport: Transport,
        logs: LogControl,
        clock: Callable[[], float] = time.monotonic,
        inline: InlineLoop | None = None,
        probe: Transport | None = None,
        certificates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Put the parts together.

        Args:
            settings: checked.
            opener: opens model files.
            transport: not started.
            logs: started.
            clock: monotonic seconds.
            inline: whose turns the transport takes; None if it takes none.
            probe: for the port of probes, not started; None if there is none.
            certificates: returns what /metrics tells of them.
        """
        self._settings = settings
        self._transport = transport
        self._clock = clock
        self._started = clock()
        self._metrics = Metrics()
        self._metrics_server = MetricsServer(self._metrics, settings.listen.metrics_max_connections)
        self._health = HealthBoard()
        self._probe = ProbePort(probe, self._health)
        self._loads, self._unloads = BlockingThreads(MOST_CHANGES), BlockingThreads(MOST_CHANGES)
        # States are read and told as one step, so that an older one never comes last.
        self._publishing = threading.Lock()
        self._draining = threading.Event()
        self._ended = threading.Event()
        self._loading = threading.Event()
        self._attempts = 0
        self._loaded = threading.Event()
        trials = RowTrials(
            clock,
            settings.verdict_folder(os.environ),
            settings.listen.max_message_bytes,
        )
        models = settings.repository
        loader = Loader(
            opener,
            settings.batching,
            settings.engine,
            self._metrics,
            clock,
            inline,
            trials=trials,
            roots=partial(link_roots, models.model_repository, models.link_folders),
        )
        self._sick = SickModels(clock)
        # Models that are not loaded again.
        self._given_up: set[str] = set()
        self._recovery = Recovery(self._load_again, after, clock, self._give_up)
        self._repository = Repository(
            models.model_repository,
            loader,
            self._models_changed,
            self._recovery.lost,
            self._recovery.missing,
            models.concurrent_loads,
            marks=LoadMarks(settings.mark_folder(os.environ), models.model_repository),
        )
        self._canaries = Canaries(self._repository, clock, self._judged, self._metrics.tried)
        self._regions = RegionTable()
        telemetry = Telemetry(self._metrics, clock, time.time, BoundedLog(log, clock))
        self._cache = make_cache(settings.cache, clock, time.time)
        self._metrics.watch_models(lambda: gauges(self._repository.entries()))
        self._metrics.watch(
            lambda: {
                **loader.gauges(),
                **self._cache.gauges(),
                **transport.bounds.gauges(),
                **certificates(),
            }
        )
        self._idle_heap = IdleHeap(transport.bounds.traffic, loader.release_idle)
        self._infer = Infer(self._repository, self._regions, telemetry, self._cache)
        self._logs = logs

    def start(self) -> tuple[int, int]:
        """Listen, not ready yet; return the gRPC and metrics ports.

        Raises:
            StartupError: a port cannot be had, or the repository cannot be read.
        """
        self._repository.check()
        listen = self._settings.listen
        check_host(listen.host)
        others = beside(listen.host)
        self._metrics.server(VERSION, self._transport.name)
        self._publish_health()
        metrics_port = self._metrics_server.start(
            listen.metrics_host or others, listen.metrics_port
        )
        try:
            refusals = Refusals(self._metrics, self._clock)
            access = open_access(self._settings, self._clock, refusals)
            self._probe.start(join_address(others, self._settings.security.probe_port))
            port = self._transport.start(
                join_address(listen.host, listen.grpc_port),
                routes(
                    self._services(),
                    self._loads.submit,
                    self._unloads.submit,
                    access=access,
                    refused=refusals.of_bounds,
                ),
            )
        except BaseException:
            self._probe.stop()
            self._metrics_server.stop()
            raise
        self._idle_heap.start()
        threading.Thread(target=self._try_models, name="canary", daemon=True).start()
        return port, metrics_port

    def load(self) -> None:
        """Load the models and become ready; blocks."""
        self._loading.set()
        try:
            self._repository.load_all(progress=self._logs.progress)
        except SettingsError as error:
            # It could be read when the server started.
            self._attempts += 1
            delay = retry_delay(self._attempts)
            where = {"error": str(error), "delay_s": delay}
            log.error("the models could not be loaded; once more later", extra=where)
            after(delay, self.load)
            return
        finally:
            self._loading.clear()
        self._loaded.set()
        self._publish_health()
        if self.ready:
            log.info("ready")
        elif not self._draining.is_set():
            log.error("not ready", extra=why_not_ready(self._missing()))

    def _try_models(self) -> None:
        """Try the models that answered nobody, every so often, until the end."""
        interval = self._settings.survival.canary_interval_s
        while interval and not self._ended.wait(interval):
            self._canaries.round(interval)

    def _judged(self, verdict: Verdict) -> None:
        if self._sick.judged(verdict):
            self._publish_health()

    def _give_up(self, model: str) -> None:
        self._given_up.add(model)
        self._publish_health()

    def _load_again(self, model: str) -> None:
        self._repository.restore(model)

    @property
    def probe_port(self) -> int:
        """Where probes are answered in plaintext; -1 if nowhere."""
        return self._probe.port

    @property
    def repository(self) -> Repository:
        """The models."""
        return self._repository

    @property
    def ready(self) -> bool:
        """True while requests should be sent here."""
        if self._draining.is_set() or not self._loaded.is_set():
            return False
        settings, wanted = self._settings.repository, self._repository.wanted
        strict, without = settings.strict_readiness, settings.ready_without_models
        return enough_serve(wanted, self._loaded_versions(), self._sick.why(), strict, without)

    def _loaded_versions(self) -> list[tuple[str, int]]:
        entries = self._repository.entries()
        return [(e.name, e.version) for e in entries if e.state is State.READY]

    def _missing(self) -> set[str]:
        wanted = self._repository.wanted
        return not_serving(wanted, self._loaded_versions(), self._sick.why())

    @property
    def live(self) -> bool:
        """True unless a model was lost that only another process may have a use of."""
        return not still_missing(self._given_up, self._repository.entries())

    def drain(self, hurry: threading.Event) -> bool:
        """Stop: readiness goes first, then new calls are refused, running ones finish.

        Args:
            hurry: set to skip whatever is being waited for.

        Returns:
            What `stop` returns.
        """
        lifecycle = self._settings.lifecycle
        self._draining.set()
        self._publish_health()
        log.info("draining", extra={"delay_s": lifecycle.drain_delay_s})
        hurry.wait(lifecycle.drain_delay_s)
        hurrying = threading.Thread(target=self._hurry, args=(hurry,), name="hurry", daemon=True)
        hurrying.start()
        ended = self.stop(lifecycle.drain_timeout_s)
        hurry.set()
        hurrying.join()
        return ended

    def _hurry(self, hurry: threading.Event) -> None:
        hurry.wait()
        self._transport.stop(0.0)

    def stop(self, grace: float) -> bool:
        """Stop at once, giving running calls `grace` seconds.

        Returns:
            False if an engine is still at work: it cannot be interrupted.
        """
        self._draining.set()
        self._ended.set()
        self._idle_heap.stop()
        self._transport.stop(grace)
        closed = self._repository.close(CLOSE_S)
        self._cache.close()
        ended = self._loads.stop(CLOSE_S) and self._unloads.stop(CLOSE_S)
        ended = ended and not self._loading.is_set()
        self._probe.stop()
        self._metrics_server.stop()
        return closed and ended

    def _services(self) -> Services:
        settings, repository = self._settings, self._repository
        state = ServerState(
            version=VERSION,
            transport=self._transport.name,
            uptime=lambda: self._clock() - self._started,
            ready=lambda: self.ready,
            draining=self._draining.is_set,
            live=lambda: self.live,
            sick=self._sick.why,
        )
        control, says_who = settings.repository.model_control, settings.security.says_who
        allowed = control_allowed(control, settings.listen.host, says_who)
        return Services(
            infer=self._infer,
            inspection=Inspection(repository, state, own_counters),
            models=ModelControl(repository, allowed),
            memory=SharedMemory(self._regions),
            diagnostics=Diagnostics(self._logs, repository),
            health=self._health,
        )

    def _models_changed(self) -> None:
        self._infer.forget()
        self._sick.keep(set(self._loaded_versions()))
        self._publish_health()

    def _publish_health(self) -> None:
        """Tell health, metrics and the cache what is true now."""
        with self._publishing:
            ready = self.ready
            entries = self._repository.entries()
            self._cache.retain(owners(entries))
            draining = self._draining.is_set()
            self._health.update(statuses(entries, ready, draining, self.live, self._sick.why()))
            self._metrics.ready(ready)
