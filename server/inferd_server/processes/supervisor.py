"""The server as a whole: its ports, readiness, shared state and end, above all processes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inferd_engines.cores import usable_cores

from inferd_server.address import beside
from inferd_server.errors import PermissionDenied
from inferd_server.models.entries import LEFT_OUT, State
from inferd_server.models.health_check import TrialVerdict
from inferd_server.models.layout import model_names
from inferd_server.models.readiness import why_not_ready
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.children import Children, Links
from inferd_server.processes.holders import Holders, unloaded
from inferd_server.processes.link.inputs import layout_of
from inferd_server.processes.policy import for_replica, wants_gpu, without_gpu
from inferd_server.processes.ports import Ports
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.shared_state import (
    ANSWER_S,
    Registry,
    SharedModels,
    SharedState,
    Totals,
)
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child, name_of, spawn
from inferd_server.processes.watchdog import TICK_S, ServerFacts, Watchdog, diagnose
from inferd_server.processes.worker_deaths import WorkerDeaths
from inferd_server.settings.model import Settings
from inferd_server.transport.listening import check_host
from inferd_server.version import VERSION

log = logging.getLogger(__name__)
TAKING_CALLS = (
    *(messages.Listening, messages.Ping, messages.Ending, messages.Measurements, TrialVerdict),
    *(
        messages.Load,
        messages.Unload,
        messages.RegisterRegion,
        messages.NoRegion,
        messages.NoRegions,
    ),
    messages.LogChange,
)
HOLDING_MODELS = (messages.ModelRecords, messages.Loaded, messages.Ping)
MAY_SEND: Mapping[str, tuple[type, ...]] = {
    WORKER: (*HOLDING_MODELS, messages.Caught),
    FRONT: (*TAKING_CALLS, messages.Quarantined, messages.Disconnected),
    REPLICA: (*TAKING_CALLS, *HOLDING_MODELS, messages.Opened, messages.Taking),
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
        spawn_child: Callable[[str, messages.ProcessPlace, Sequence[int]], Child] = spawn,
        started: Callable[[], None] = lambda: None,
        replicas: int = 0,
        gauges: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            settings: checked.
            logs: started.
            fronts: how many, before a worker; 0 where there are replicas.
            failed: called when the server cannot go on; `failure` says why.
            spawn_child: starts a process of a role, given its place and what it inherits.
            started: called, once and more often, after the start is over.
            replicas: how many, instead of fronts and a worker.
            gauges: returns what /metrics tells besides.
        """
        self._gauges = gauges
        self._replicas = replicas
        self._count = replicas or fronts
        self._spawn_child = spawn_child
        self._started = started
        self.failure = ""
        self._settings = settings
        self._logs = logs
        self._told_failure = failed
        self._ports = Ports(settings)
        self._links = Links(fronts, layout_of(settings.split))
        self._metrics = Metrics()
        self._lock = threading.RLock()
        self._children = Children(
            self._links,
            self._lock,
            self._spawn,
            self._handle,
            self._update,
            self._died,
            self._fail,
            replicas=replicas,
        )
        self._totals = Totals(self._children.everyone, self._own_metrics)
        self._metrics_server = MetricsServer(self._totals, settings.listen.metrics_max_connections)
        self._regions = Registry()
        self._holders = Holders(self._lock)
        self._shared_state = SharedState(
            self._children, self._regions, logs, self._totals, self._holders
        )
        self.models = SharedModels(self._shared_state, self._holders)
        self._quarantine = Quarantine(settings.survival.quarantine_s, time.monotonic)
        self._transports: dict[Child, str] = {}
        self._condition = messages.Condition(ready=False, draining=False)
        self._deaths = WorkerDeaths()
        # Why processes leave a GPU alone; "" if they do not.
        self._without_gpu = ""
        self._vigil = Watchdog(
            settings.survival, time.monotonic, self._children.live_endpoints, bool(replicas)
        )
        # When requests were served last, once they were.
        self._served: float | None = None
        self._ended = threading.Event()
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
        self._children.start()
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
        self._children.stop()
        grace = lifecycle.drain_timeout_s
        threading.Thread(
            target=self._let_finish, args=(grace, hurry), name="finish", daemon=True
        ).start()
        hurry.wait()
        self._stop_endpoints(0.0, HURRY_S)

    def end(self) -> None:
        """End every process now. Safe to call twice."""
        self._ended.set()
        self._children.stop()
        holders = self._holders.counting()
        patience = HURRY_S if any(map(self._vigil.silent, holders)) else ANSWER_S
        answers([child.channel.ask(messages.Stop(0.0)) for child in holders], patience)
        self._children.end(self._vigil.silent)
        self._metrics_server.stop()
        self._ports.close()

    def _stop_endpoints(self, grace: float, patience: float) -> None:
        endpoints = self._children.live_endpoints()
        stops = [child.channel.ask(messages.Stop(grace)) for child in endpoints]
        # A process that does not even answer does not keep the server from ending.
        answers(stops, patience)

    def _let_finish(self, grace: float, over: threading.Event) -> None:
        # Who has not answered by then is asked once more, for much less time.
        self._stop_endpoints(grace, grace)
        over.set()

    def _spawn(self, role: str, index: int) -> Child:
        if role == WORKER:
            place, inherited = self._links.for_worker(self._settings, self._ports.address)
            return self._start_holder(role, place, inherited, counts=True)
        probe = self._ports.probe_address
        if role == REPLICA:
            settings = for_replica(self._settings, self._replicas, usable_cores())
            place = self._links.for_replica(index, settings, self._ports.address, probe)
            # Beside others that take calls it is to have what they have.
            alone = not self._transports
            child = self._start_holder(role, place, (), counts=alone)
            self._tell_endpoint(child)
            if alone:
                child.channel.tell(messages.Listen())
            return child
        place, inherited = self._links.for_front(index, self._settings, self._ports.address, probe)
        child = self._spawn_child(role, replace(place, logs=self._logs.read()), inherited)
        child.channel.tell(messages.Quarantined(tuple(self._quarantine.marks())))
        child.channel.tell(self._holders.models)
        # The last, because the front listens as soon as it knows the condition.
        self._tell_endpoint(child)
        return child

    def _tell_endpoint(self, child: Child) -> None:
        self._regions.tell(child)
        child.channel.tell(self._condition)

    def _start_holder(
        self, role: str, place: messages.ProcessPlace, inherited: Sequence[int], counts: bool
    ) -> Child:
        """Start a process that is to load what the ones before it had, with the lock held."""
        engine, models = self._settings.engine, self._holders.models
        failures = self._children.failures(name_of(role, place.index))
        why = without_gpu(engine.cpu_fallback, wants_gpu(engine), failures)
        if why:
            log.error("the next worker leaves the GPU alone", extra={"why": why})
        self._without_gpu = why
        overrides = self._holders.overrides
        place = replace(
            place,
            without_gpu=why,
            awaits_overrides=bool(overrides),
            logs=self._logs.read(),
            wanted=models.wanted,
            unloaded=unloaded(models),
            left_out=self._deaths.left_out,
            batch_limits=self._deaths.batch_limits,
        )
        child = self._spawn_child(role, place, inherited)
        self._holders.begin(child, counts)
        if overrides:
            child.channel.tell(messages.ModelOverrides(overrides))
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
            case messages.ModelRecords():
                self._tell_models(child, message)
            case messages.Loaded(failed):
                # It waits for others, and the process must be heard meanwhile.
                threading.Thread(
                    target=self._loaded, args=(child, failed), name="loaded", daemon=True
                ).start()
            case messages.Listening(transport):
                self._heard(child, transport)
            case messages.Ping():
                self._vigil.heard(child)
            case TrialVerdict():
                self._judged(child, message)
            case messages.Opened() | messages.Taking():
                self._holders.agree(child, message)
            case messages.Quarantined():
                self._quarantined(message)
            case messages.Ending(reason):
                self._children.ending(child, reason)
            case messages.Disconnected(ran):
                self._limit_batches(ran)
                self._children.disconnected(child)
            case _:
                return self._shared_state.answer(message)
        return None

    def _judged(self, child: Child, verdict: TrialVerdict) -> None:
        if self._vigil.judged(child, verdict):
            self._update()

    def _quarantined(self, found: messages.Quarantined) -> None:
        self._quarantine.learn(found.marks)
        for front in self._children.live_endpoints():
            front.channel.tell(found)

    def _limit_batches(self, ran: Mapping[tuple[str, int], int]) -> None:
        """See to it that batches that used up the memory are not formed again."""
        with self._lock:
            limits = self._deaths.ran(ran)
            if limits and self._children.worker is not None:
                self._children.worker.channel.tell(messages.BatchLimits(limits))
        for (name, version), rows in limits.items():
            where = {"model": name, "version": version, "most_rows": rows}
            log.error("memory ran out in a batch of a model, which gets smaller ones", extra=where)

    def _tell_models(self, child: Child, models: messages.ModelRecords) -> None:
        with self._lock:
            self._holders.told(child, models)
            self._know_models()
            if child.role == WORKER:
                for front in self._children.live_endpoints():
                    front.channel.tell(models)
        self._let_listen()
        self._update()

    def _know_models(self) -> None:
        records = self._holders.models.records
        ready = {(r.name, r.version) for r in records if r.state == State.READY.value}
        self._vigil.keep(ready)
        self._deaths.served({name for name, _ in ready})

    def _loaded(self, child: Child, failed: frozenset[str]) -> None:
        self._shared_state.catch_up()
        if not self._holders.tried(child, failed):
            return
        self._children.useful(child)
        self._holders.join(child)
        self._know_models()
        self._let_listen()
        self._update()
        without, wanted = (
            self._settings.repository.ready_without_models,
            self._holders.models.wanted,
        )
        if not self._condition.ready and (failed or not (wanted or without)):
            log.error("not ready", extra=why_not_ready(failed))

    def _let_listen(self) -> None:
        """Have the replicas take calls that have what all have, or whatever is left of them."""
        with self._lock:
            if not self._replicas or self._draining:
                return
            if self._listening and not self._transports:
                self._holders.count_all()
            for child in self._holders.counting():
                if child not in self._transports:
                    child.channel.tell(messages.Listen())

    def _heard(self, child: Child, transport: str) -> None:
        with self._lock:
            self._transports[child] = transport
            self._metrics.server(VERSION, ",".join(sorted(set(self._transports.values()))))
            again = self._listening
            first = not again and len(self._transports) == self._count
            self._listening = again or first
        if again:
            log.info("listening again", extra={"child": child.name})
        if first:
            where = {"host": self._settings.listen.host, "metrics_port": self._metrics_port}
            processes = {"replicas" if self._replicas else "fronts": self._count}
            log.info("listening", extra={**where, **self._ports.numbers, **processes})
        if child.role == FRONT:
            self._children.useful(child)
        self._update()

    def _died(self, child: Child, code: int | None) -> None:
        self._totals.ended(child)
        with self._lock:
            self._transports.pop(child, None)
            if child.role != FRONT:
                self._blame(child, code)
                # For fronts that come now: the others know it, and what they had to do about it.
                self._holders.lost(child)
                self._know_models()
        self._let_listen()

    def _blame(self, child: Child, code: int | None) -> None:
        """Leave models out that ended processes while they were loaded."""
        engine, loading = self._settings.engine, self._holders.loading(child)
        if wants_gpu(engine) and engine.cpu_fallback and not self._without_gpu:
            # The processor is tried first.
            loading = set()
        for name in self._deaths.died(code, loading):
            log.error("a model is left out", extra={"model": name, "why": LEFT_OUT})
            self._children.forgive(child.name)

    def _own_metrics(self) -> MetricsSnapshot:
        processes = {"inferd_processes": 1.0 + len(self._children.everyone()), **self._gauges()}
        roles = (REPLICA,) if self._replicas else (WORKER, FRONT)
        restarts = {role: self._children.restarts[role] for role in roles}
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
        self._vigil.look(self._children.everyone())
        for child, why in self._vigil.hung(self._children.worker):
            self._children.kill(child, why)
        self._update()

    def _update(self) -> None:
        """Tell everybody when the server became ready, or is so no more."""
        if self._listening and self._holders.loaded:
            self._started()
        with self._lock:
            now = diagnose(self._facts())
            before, self._condition = self._condition, now
            if now == before:
                return
            self._metrics.ready(now.ready)
            for child in self._children.live_endpoints():
                child.channel.tell(now)
            if before.ready and not now.ready and not now.draining:
                log.error("not ready")
        if now.ready and not before.ready:
            # It waits for the fronts, whose messages may have led here.
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        """Log that the server is ready, once every front says so."""
        self._shared_state.catch_up()
        with self._lock:
            if self._condition.ready and not self._draining:
                log.info("ready")

    def _facts(self) -> ServerFacts:
        silent = any(map(self._vigil.silent, self._holders.counting()))
        serving, loaded = self._serving(), self._holders.loaded
        now = time.monotonic()
        if serving and not silent and loaded:
            self._served = now
        return ServerFacts(
            draining=self._draining,
            listening=self._listening,
            serving=serving,
            silent=silent,
            loaded=loaded,
            wanted=self._holders.models.wanted,
            records=self._holders.models.records,
            sick=self._vigil.sick(),
            partial=self._holders.partial,
            strict=self._settings.repository.strict_readiness,
            without_models=self._settings.repository.ready_without_models,
            down_s=0.0 if self._served is None else now - self._served,
            repair_timeout_s=self._settings.survival.repair_timeout_s,
        )

    def _serving(self) -> bool:
        """True while somebody who takes calls has models to ask."""
        if not self._replicas:
            return self._children.serving
        return any(child in self._transports for child in self._holders.joined())
