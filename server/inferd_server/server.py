"""A server put together from its parts, started and stopped."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping

from inferd_engines.engine import Opener

from inferd_server.address import beside, join_address
from inferd_server.batching.fatal import End, go_on
from inferd_server.batching.inline import InlineLoop
from inferd_server.errors import SettingsError
from inferd_server.feedback.keys import token_keys
from inferd_server.models.entries import State, gauges
from inferd_server.models.health_check import FailingModels, TrialVerdict
from inferd_server.models.load_marks import LoadMarks
from inferd_server.models.loader import Loader, loader_of
from inferd_server.models.readiness import (
    enough_serve,
    not_serving,
    still_missing,
    why_not_ready,
)
from inferd_server.models.recovery import Recovery, retry_delay
from inferd_server.models.repository import Repository
from inferd_server.monitoring.alerts.watch import make_watch
from inferd_server.monitoring.busy import BusyWindow, ratio
from inferd_server.monitoring.device_memory import device_memory
from inferd_server.monitoring.drift.judge import gauges_of, judge_of
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.monitoring.page.numbers import ShownModel
from inferd_server.monitoring.page.page import PageSources, make_page
from inferd_server.processes.endpoint import Changes, Endpoint
from inferd_server.processes.messages import Condition
from inferd_server.processes.model_host import record, shown
from inferd_server.processes.policy import wants_gpu
from inferd_server.rpc.metadata import own_counters
from inferd_server.settings.model import Settings
from inferd_server.threads import after
from inferd_server.transport.call import Transport
from inferd_server.transport.listening import check_host
from inferd_server.version import VERSION

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
        end: End = go_on,
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
            end: called with an error after which an engine can run nothing more.

        Raises:
            SettingsError: a key of prediction tokens, or the file of sinks, cannot be used.
        """
        self._settings, self._transport, self._logs = settings, transport, logs
        self._clock, self._started = clock, clock()
        self._metrics = Metrics(lines=logs.recent)
        self._metrics.watch_devices(device_memory(wants_gpu(settings.engine)).read)
        self._draining, self._ended = threading.Event(), threading.Event()
        self._loading, self._loaded = threading.Event(), threading.Event()
        self._attempts = 0
        loader = loader_of(settings, opener, self._metrics, clock, inline, end=end)
        self._sick = FailingModels(clock)
        # Models that are not loaded again.
        self._given_up: set[str] = set()
        self._recovery = Recovery(self._load_again, after, clock, self._give_up)
        self._repository = self._repository_of(loader)
        self._alerts = make_watch(settings.alerts, self._metrics.collector.collect, clock)
        sources = PageSources(self._metrics.snapshot, self._shown, self._alerts.told)
        self._metrics_server = MetricsServer(
            self._metrics,
            settings.listen.metrics_max_connections,
            make_page(settings, sources),
        )
        self._metrics.watch_models(lambda: gauges(self._repository.entries()))
        self.busy = BusyWindow(lambda: loader.lines(self._repository.entries()), clock)
        self._metrics.watch_engines(self.busy.shares)
        self.endpoint = self._endpoint_of(loader, probe, certificates)
        self._judge = judge_of(
            settings.drift, loader.drift.references, self.endpoint.observers.drift.counts
        )
        self._metrics.watch_drifted(lambda: gauges_of(self._judge.reports()))

    def _repository_of(self, loader: Loader) -> Repository:
        models = self._settings.repository
        return Repository(
            models.model_repository,
            loader,
            self._models_changed,
            self._recovery.lost,
            self._recovery.missing,
            models.concurrent_loads,
            marks=LoadMarks(self._settings.mark_folder(os.environ), models.model_repository),
        )

    def _endpoint_of(
        self,
        loader: Loader,
        probe: Transport | None,
        certificates: Callable[[], Mapping[str, float]],
    ) -> Endpoint:
        return Endpoint(
            self._settings,
            token_keys(self._settings.feedback),
            self._transport,
            self._repository,
            self._metrics,
            self._condition,
            self._judged,
            loader.release_idle,
            lambda: {**loader.gauges(), **certificates(), **self._alerts.gauges()},
            lambda: ratio(self.busy.shares()),
            probe,
            lambda now: self._metrics.ready(now.ready),
            self._clock,
            loader.drift.references,
        )

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
        self.endpoint.publish()
        metrics_port = self._metrics_server.start(
            listen.metrics_host or others, listen.metrics_port
        )
        changes = Changes(
            self._repository,
            self.endpoint.regions,
            self._logs,
            own_counters,
            self._judge.look,
        )
        try:
            port = self.endpoint.start(
                join_address(listen.host, listen.grpc_port),
                join_address(others, self._settings.security.probe_port),
                changes,
            )
        except BaseException:
            self._metrics_server.stop()
            raise
        self.busy.start()
        threading.Thread(target=self._try_models, name="health checks", daemon=True).start()
        self._alerts.start()
        if self._settings.drift.drift_cpu_share:
            self._judge.start()
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
        self.endpoint.publish()
        if self.ready:
            log.info("ready")
        elif not self._draining.is_set():
            log.error("not ready", extra=why_not_ready(self._missing()))

    def _try_models(self) -> None:
        """Try the models that answered nobody, every so often, until the end."""
        interval = self._settings.survival.canary_interval_s
        while interval and not self._ended.wait(interval):
            self.endpoint.checks.round(interval)

    def _judged(self, verdict: TrialVerdict) -> None:
        if self._sick.judged(verdict):
            self.endpoint.publish()

    def _give_up(self, model: str) -> None:
        self._given_up.add(model)
        self.endpoint.publish()

    def _load_again(self, model: str) -> None:
        self._repository.restore(model)

    @property
    def probe_port(self) -> int:
        """Where probes are answered in plaintext; -1 if nowhere."""
        return self.endpoint.probe_port

    @property
    def repository(self) -> Repository:
        """The models."""
        return self._repository

    @property
    def tried(self) -> bool:
        """True once all models of the start were loaded, or failed."""
        return self._loaded.is_set()

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
        self.endpoint.publish()
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
        self.endpoint.stop(0.0)

    def stop(self, grace: float) -> bool:
        """Stop at once, giving running calls `grace` seconds.

        Returns:
            False if an engine is still at work: it cannot be interrupted.
        """
        self._draining.set()
        self._ended.set()
        self._judge.stop()
        self.busy.stop()
        self.endpoint.stop(grace)
        closed = self._repository.close(CLOSE_S)
        ended = self.endpoint.close(CLOSE_S) and not self._loading.is_set()
        self._metrics_server.stop()
        self._alerts.stop()
        return closed and ended

    def _models_changed(self) -> None:
        self._sick.keep(set(self._loaded_versions()))
        self.endpoint.models_changed()

    def _shown(self) -> list[ShownModel]:
        return shown(map(record, self._repository.entries()), self._condition().sick)

    def _condition(self) -> Condition:
        sick = tuple((*version, why) for version, why in self._sick.why().items())
        return Condition(self.ready, self._draining.is_set(), self.live, sick)
