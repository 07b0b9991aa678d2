"""The server as a whole: its ports, readiness, shared state and end, above all processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inferd_server.address import beside
from inferd_server.control import messages
from inferd_server.control.channel import answers
from inferd_server.errors import PermissionDenied
from inferd_server.front.quarantine import Quarantine
from inferd_server.front.verdict import Verdict
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.repository.entries import LEFT_OUT, UNLOADED, State
from inferd_server.repository.layout import model_names
from inferd_server.repository.readiness import why_not_ready
from inferd_server.settings.model import Settings
from inferd_server.supervisor.diagnosis import Facts, diagnose
from inferd_server.supervisor.fleet import WORKER_LOST, Fleet
from inferd_server.supervisor.links import Links
from inferd_server.supervisor.policy import wants_gpu, without_gpu
from inferd_server.supervisor.ports import Ports
from inferd_server.supervisor.regions import Registry
from inferd_server.supervisor.relay import ANSWER_S, Relay
from inferd_server.supervisor.spawn import FRONT, WORKER, Child, spawn
from inferd_server.supervisor.totals import Totals
from inferd_server.supervisor.vigil import TICK_S, Vigil
from inferd_server.supervisor.worker_deaths import WorkerDeaths
from inferd_server.transport.listening import check_host
from inferd_server.version import VERSION

log = logging.getLogger(__name__)
MAY_SEND: Mapping[str, tuple[type, ...]] = {
    WORKER: (messages.Models, messages.Loaded, messages.Ping, messages.Caught),
    FRONT: (
        *(messages.Listening, messages.Ping, messages.Quarantined, messages.Disconnected, Verdict),
        *(messages.Load, messages.Unload, messages.Region, messages.NoRegion, messages.NoRegions),
        *(messages.LogChange, messages.Measurements, messages.Ending),
    ),
}
"""What each kind of process tells or asks; nothing else is heard of it."""
HURRY_S = 1.0
"""As ANSWER_S, when there is no time."""


class Supervisor:
    """Speaks for the processes of one server. Any thread may call any method."""

    def __init__(
        self,
        settings: Settings,
        logs: LogControl,
        fronts: int,
        failed: Callable[[], None],
        spawn_child: Callable[[str, messages.Place, Sequence[int]], Child] = spawn,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            settings: checked.
            logs: started.
            fronts: how many.
            failed: called when the server cannot go on; `failure` says why.
            spawn_child: starts a process of a role, given its place and what it inherits.
            started: called, once and more often, after the start is over.
        """
        self._spawn_child = spawn_child
        self._started = started
        self.failure = ""
        self._settings = settings
        self._logs = logs
        self._told_failure = failed
        self._ports = Ports(settings)
        self._links = Links(fronts, settings.split.layout)
        self._metrics = Metrics()
        self._lock = threading.RLock()
        self._fleet = Fleet(
            self._links, self._lock, self._spawn, self._handle, self._update, self._died, self._fail
        )
        self._totals = Totals(self._fleet.everyone, self._own_metrics)
        self._metrics_server = MetricsServer(self._totals, settings.listen.metrics_max_connections)
        self._regions = Registry()
        self._relay = Relay(self._fleet, self._regions, logs, self._totals)
        self._quarantine = Quarantine(settings.survival.quarantine_s, time.monotonic)
        self._models = messages.Models((), settled=False)
        self._failed: frozenset[str] | None = None
        self._transports: dict[Child, str] = {}
        self._condition = messages.Condition(ready=False, draining=False)
        self._deaths = WorkerDeaths()
        # Why the worker leaves a GPU alone; "" if it does not.
        self._without_gpu = ""
        self._vigil = Vigil(settings.survival, time.monotonic, self._fleet.live_fronts)
        # When the worker served last, once it has.
        self._served: float | None = None
        self._ended = threading.Event()
        self._announcing = threading.Lock()
        self._announced = False
        self._draining = False
        self._listening = False
        self._metrics_port = 0

    def start(self) -> None:
        """Take the ports and start every process; the log tells when they listen.

        Raises:
            StartupError: a port cannot be had, or the repository cannot be read.
        """
        listen = self._settings.listen
        model_names(self._settings.repository.model_repository)
        check_host(listen.host)
        self._ports.open()
        self._metrics_port = self._metrics_server.start(
            listen.metrics_host or beside(listen.host), listen.metrics_port
        )
        self._fleet.start()
        threading.Thread(target=self._watch, name="vigil", daemon=True).start()

    def drain(self, hurry: threading.Event) -> None:
        """Stop: readiness goes first, then new calls are refused, running ones finish.

        Args:
            hurry: set to skip whatever is being waited for.
        """
        lifecycle = self._settings.lifecycle
        with self._lock:
            self._draining = True
        self._update()
        log.info("draining", extra={"delay_s": lifecycle.drain_delay_s})
        hurry.wait(lifecycle.drain_delay_s)
        self._fleet.stop()
        grace = lifecycle.drain_timeout_s
        threading.Thread(
            target=self._let_finish, args=(grace, hurry), name="finish", daemon=True
        ).start()
        hurry.wait()
        self._stop_fronts(0.0, HURRY_S)

    def end(self) -> None:
        """End every process now. Safe to call twice."""
        self._ended.set()
        self._fleet.stop()
        with self._lock:
            worker = self._fleet.worker
        if worker is not None:
            patience = HURRY_S if self._vigil.silent(worker) else ANSWER_S
            answers([worker.channel.ask(messages.Stop(0.0))], patience)
        self._fleet.end(self._vigil.silent)
        self._metrics_server.stop()
        self._ports.close()

    def _stop_fronts(self, grace: float, patience: float) -> None:
        stops = [front.channel.ask(messages.Stop(grace)) for front in self._fleet.live_fronts()]
        # A front that does not even answer does not keep the server from ending.
        answers(stops, patience)

    def _let_finish(self, grace: float, over: threading.Event) -> None:
        # Who has not answered by then is asked once more, for much less time.
        self._stop_fronts(grace, grace)
        over.set()

    def _spawn(self, role: str, index: int) -> Child:
        address = self._ports.address
        if role == WORKER:
            engine = self._settings.engine
            failures = self._fleet.failures(WORKER)
            why = without_gpu(engine.cpu_fallback, wants_gpu(engine), failures)
            if why:
                log.error("the next worker leaves the GPU alone", extra={"why": why})
            self._without_gpu = why
            place, inherited = self._links.for_worker(self._settings, address, why)
            overrides = self._relay.overrides()
            place = replace(
                place,
                awaits_overrides=bool(overrides),
                logs=self._logs.read(),
                wanted=self._models.wanted,
                unloaded=unloaded(self._models),
                left_out=self._deaths.left_out,
                batch_limits=self._deaths.batch_limits,
            )
            child = self._spawn_child(role, place, inherited)
            if overrides:
                child.channel.tell(messages.Overrides(overrides))
            return child
        probe = self._ports.probe_address
        place, inherited = self._links.for_front(index, self._settings, address, probe)
        place = replace(place, logs=self._logs.read())
        child = self._spawn_child(role, place, inherited)
        self._regions.tell(child)
        child.channel.tell(messages.Quarantined(tuple(self._quarantine.marks())))
        with self._lock:
            child.channel.tell(self._models)
            # The last, because the front listens as soon as it knows it.
            child.channel.tell(self._condition)
        return child

    def _handle(self, child: Child, message: object) -> object:
        """Do what a process tells or asks, if it is one of those who may."""
        if message is not None and not isinstance(message, MAY_SEND[child.role]):
            name = type(message).__name__
            log.error("not its message", extra={"child": child.name, "told": name})
            raise PermissionDenied(f"a {child.role} process may not send {name}")
        return self._do(child, message)

    def _do(self, child: Child, message: object) -> object:
        match message:
            case messages.Models():
                self._tell_models(message)
            case messages.Loaded(failed):
                # It waits for the fronts, and the worker must be heard meanwhile.
                threading.Thread(
                    target=self._loaded, args=(child, failed), name="loaded", daemon=True
                ).start()
            case messages.Listening(transport):
                self._heard(child, transport)
            case messages.Ping():
                self._vigil.heard(child)
            case Verdict():
                self._judged(message)
            case messages.Quarantined(marks):
                self._quarantine.learn(marks)
                for front in self._fleet.live_fronts():
                    front.channel.tell(message)
            case messages.Ending(reason):
                self._fleet.ending(child, reason)
            case messages.Disconnected(ran):
                self._limit_batches(ran)
                self._fleet.disconnected(child)
            case _:
                return self._relay.answer(message)
        return None

    def _limit_batches(self, ran: Mapping[tuple[str, int], int]) -> None:
        """See to it that batches that used up the memory are not formed again."""
        with self._lock:
            limits = self._deaths.ran(ran)
            if limits and self._fleet.worker is not None:
                self._fleet.worker.channel.tell(messages.BatchLimits(limits))
        for (name, version), rows in limits.items():
            where = {"model": name, "version": version, "most_rows": rows}
            log.error("memory ran out in a batch of a model, which gets smaller ones", extra=where)

    def _judged(self, verdict: Verdict) -> None:
        if self._vigil.models.judged(verdict):
            self._update()

    def _tell_models(self, models: messages.Models) -> None:
        with self._lock:
            self._know_models(models)
            for front in self._fleet.live_fronts():
                front.channel.tell(models)
        self._update()

    def _know_models(self, models: messages.Models) -> None:
        self._models = models
        ready = {(r.name, r.version) for r in models.records if r.state == State.READY.value}
        self._vigil.models.keep(ready)
        self._deaths.served({name for name, _ in ready})

    def _loaded(self, child: Child, failed: frozenset[str]) -> None:
        self._relay.catch_up()
        with self._lock:
            if self._fleet.worker is not child:
                return
            self._failed = failed
        self._fleet.useful(child)
        self._update()
        without = self._settings.repository.ready_without_models
        if not self._condition.ready and (failed or not (self._models.wanted or without)):
            log.error("not ready", extra=why_not_ready(failed))

    def _heard(self, child: Child, transport: str) -> None:
        with self._lock:
            self._transports[child] = transport
            self._metrics.server(VERSION, ",".join(sorted(set(self._transports.values()))))
            first = not self._listening and len(self._transports) == self._links.count
            self._listening = self._listening or first
        if first:
            where = {"host": self._settings.listen.host, "metrics_port": self._metrics_port}
            fronts = {"fronts": self._links.count}
            log.info("listening", extra={**where, **self._ports.numbers, **fronts})
        self._fleet.useful(child)
        self._update()

    def _died(self, child: Child, code: int | None) -> None:
        self._totals.ended(child)
        with self._lock:
            self._transports.pop(child, None)
            if child.role == WORKER:
                self._failed = None
                self._blame(code)
                # For fronts that come now: the others know it, and what they had to do about it.
                self._know_models(lost(self._models))

    def _blame(self, code: int | None) -> None:
        """Leave models out that ended workers while they were loaded."""
        engine, records = self._settings.engine, self._models.records
        loading = {each.name for each in records if each.state == State.LOADING.value}
        if wants_gpu(engine) and engine.cpu_fallback and not self._without_gpu:
            # The processor is tried first.
            loading = set()
        for name in self._deaths.died(code, loading):
            log.error("a model is left out", extra={"model": name, "why": LEFT_OUT})
            self._fleet.forgive(WORKER)

    def _own_metrics(self) -> MetricsSnapshot:
        processes = {"inferd_processes": 1.0 + len(self._fleet.everyone())}
        restarts = {role: self._fleet.restarts[role] for role in (WORKER, FRONT)}
        return replace(self._metrics.snapshot(), gauges=processes, restarts=restarts)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason
        self._told_failure()

    def _watch(self) -> None:
        """Look after the processes until the end."""
        while not self._ended.wait(TICK_S):
            try:
                self._look()
            except Exception:
                log.exception("a look at the processes failed")

    def _look(self) -> None:
        self._vigil.look(self._fleet.everyone())
        for child, why in self._vigil.hung(self._fleet.worker):
            self._fleet.kill(child, why)
        self._update()

    def _update(self) -> None:
        """Tell everybody when the server became ready, or is so no more."""
        if self._listening and self._failed is not None:
            self._started()
        with self._lock:
            now = diagnose(self._facts())
            before, self._condition = self._condition, now
            if now == before:
                return
            self._metrics.ready(now.ready)
            for front in self._fleet.live_fronts():
                front.channel.tell(now)
        if now.ready != before.ready and not now.draining:
            # It waits for the fronts, whose messages may have led here.
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        """Log that the server became ready or is so no more, once every front says the same."""
        with self._announcing:
            self._relay.catch_up()
            ready = self._condition.ready
            if ready != self._announced and not self._draining:
                self._announced = ready
                log.log(*((logging.INFO, "ready") if ready else (logging.ERROR, "not ready")))

    def _facts(self) -> Facts:
        silent = self._vigil.silent(self._fleet.worker)
        serving = self._fleet.serving
        now = time.monotonic()
        if serving and not silent and self._failed is not None:
            self._served = now
        return Facts(
            draining=self._draining,
            listening=self._listening,
            serving=serving,
            silent=silent,
            loaded=self._failed is not None,
            wanted=self._models.wanted,
            records=self._models.records,
            sick=self._vigil.models.why(),
            strict=self._settings.repository.strict_readiness,
            without_models=self._settings.repository.ready_without_models,
            down_s=0.0 if self._served is None else now - self._served,
            repair_timeout_s=self._settings.survival.repair_timeout_s,
        )


def lost(models: messages.Models) -> messages.Models:
    """Return what is to be said of the models of a worker that died."""
    records = (
        each
        if each.reason == UNLOADED
        else messages.ModelRecord(
            each.name, each.version, State.UNAVAILABLE.value, WORKER_LOST, None
        )
        for each in models.records
    )
    return messages.Models(tuple(records), settled=False, wanted=models.wanted)


def unloaded(models: messages.Models) -> frozenset[str]:
    """Return the models that callers had unloaded, all versions of them."""
    others = {each.name for each in models.records if each.reason != UNLOADED}
    return frozenset(each.name for each in models.records) - others
