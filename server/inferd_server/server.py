"""A server put together from its parts, started and stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from inferd_engines.engine import Opener

from inferd_server.address import join_address
from inferd_server.cache.making import make_cache
from inferd_server.control.blocking import BlockingThread
from inferd_server.control.later import after
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
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.repository.control import control_allowed
from inferd_server.repository.loader import Loader
from inferd_server.repository.readiness import enough_serve, still_missing
from inferd_server.repository.recovery import Recovery
from inferd_server.repository.repository import Repository, State
from inferd_server.security.opening import open_access
from inferd_server.security.refusals import Refusals
from inferd_server.settings.model import Settings
from inferd_server.transport.call import Transport
from inferd_server.version import VERSION
from inferd_server.worker.inline import InlineLoop

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
        self._blocking = BlockingThread()
        # States are read and told as one step, so that an older one never comes last.
        self._publishing = threading.Lock()
        self._draining = threading.Event()
        self._ended = threading.Event()
        self._loading = threading.Event()
        self._loaded = threading.Event()
        loader = Loader(opener, settings.batching, settings.engine, self._metrics, clock, inline)
        self._sick = SickModels(clock)
        # Models that are not loaded again.
        self._given_up: set[str] = set()
        recovery = Recovery(self._load_again, after, clock, self._give_up)
        self._repository = Repository(
            settings.repository.model_repository, loader, self._models_changed, recovery.lost
        )
        self._canaries = Canaries(self._repository, clock, self._judged, self._metrics.tried)
        self._regions = RegionTable()
        telemetry = Telemetry(self._metrics, clock, time.time)
        self._cache = make_cache(settings.cache, clock, time.time)
        self._metrics.watch(lambda: {**self._cache.gauges(), **certificates()})
        self._infer = Infer(self._repository, self._regions, telemetry, self._cache)
        self._logs = logs
        # Models that the start could not load.
        self._failed: frozenset[str] = frozenset()

    def start(self) -> tuple[int, int]:
        """Listen, not ready yet; return the gRPC and metrics ports.

        Raises:
            StartupError: a port cannot be had, or the repository cannot be read.
        """
        self._repository.check()
        listen = self._settings.listen
        self._metrics.server(VERSION, self._transport.name)
        self._publish_health()
        metrics_port = self._metrics_server.start(
            listen.metrics_host or listen.host, listen.metrics_port
        )
        try:
            refusals = Refusals(self._metrics, self._clock)
            access = open_access(self._settings, self._clock, refusals)
            self._probe.start(join_address(listen.host, self._settings.security.probe_port))
            port = self._transport.start(
                join_address(listen.host, listen.grpc_port),
                routes(self._services(), self._blocking.submit, access=access),
            )
        except BaseException:
            self._probe.stop()
            self._metrics_server.stop()
            raise
        self._blocking.start()
        threading.Thread(target=self._try_models, name="canary", daemon=True).start()
        return port, metrics_port

    def load(self) -> None:
        """Load the models and become ready; blocks."""
        self._loading.set()
        try:
            self._failed = self._repository.load_all()
        except Exception:
            log.exception("the models could not be loaded; this server will never be ready")
            return
        finally:
            self._loading.clear()
        self._loaded.set()
        self._publish_health()
        if self.ready:
            log.info("ready")
        elif not self._draining.is_set():
            log.error("not ready", extra={"failed": ", ".join(sorted(self._failed))})

    def _try_models(self) -> None:
        """Try the models that answered nobody, every so often, until the end."""
        interval = self._settings.survival.canary_interval_s
        while interval and not self._ended.wait(interval):
            self._canaries.round(interval)

    def _judged(self, verdict: Verdict) -> None:
        self._sick.judged(verdict)
        self._publish_health()

    def _give_up(self, model: str) -> None:
        self._given_up.add(model)
        self._publish_health()

    def _load_again(self, model: str) -> None:
        self._repository.load(model)

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
        entries = self._repository.entries()
        ready = [(e.name, e.version) for e in entries if e.state is State.READY]
        strict = self._settings.repository.strict_readiness
        return enough_serve(self._failed, ready, self._sick.why(), strict)

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
        self._transport.stop(grace)
        closed = self._repository.close(CLOSE_S)
        self._cache.close()
        ended = self._blocking.stop(CLOSE_S) and not self._loading.is_set()
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
            diagnostics=Diagnostics(self._logs),
            health=self._health,
        )

    def _models_changed(self) -> None:
        self._infer.forget()
        entries = self._repository.entries()
        ready = {(e.name, e.version) for e in entries if e.state is State.READY}
        self._sick.keep(ready)
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
