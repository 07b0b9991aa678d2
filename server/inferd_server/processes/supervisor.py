"""The server as a whole: its ports, readiness, shared state and end, above all processes."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from inferd_server.address import beside
from inferd_server.errors import PermissionDenied
from inferd_server.feedback.keys import token_keys
from inferd_server.models.entries import LEFT_OUT, State
from inferd_server.models.health_check import TrialVerdict
from inferd_server.models.layout import model_names
from inferd_server.monitoring.alerts.watch import make_watch
from inferd_server.monitoring.device_memory import device_memory
from inferd_server.monitoring.drift.judge import gauges_of, judge_of
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.drift.windows import DriftCounts, Key
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics, MetricsServer
from inferd_server.monitoring.page.numbers import ShownModel
from inferd_server.monitoring.page.page import PageSources, make_page
from inferd_server.monitoring.snapshot import MetricsSnapshot
from inferd_server.processes import messages
from inferd_server.processes.channel import answers
from inferd_server.processes.children import ANSWER_S, Children, Events
from inferd_server.processes.condition import ServerCondition, Sources
from inferd_server.processes.holders import Holders
from inferd_server.processes.link.inputs import layout_of
from inferd_server.processes.links import Links
from inferd_server.processes.model_host import shown
from inferd_server.processes.placement import Placements
from inferd_server.processes.policy import FAILURES_ON_GPU, LIMIT, ServerPlan, wants_gpu
from inferd_server.processes.ports import Ports
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.shared_state import Registry, SharedModels, SharedState
from inferd_server.processes.spawn import FRONT, REPLICA, WORKER, Child, spawn
from inferd_server.processes.starts import ServerParts, SpawnChild, Starts
from inferd_server.processes.totals import Totals, states_of
from inferd_server.processes.watchdog import TICK_S, Watchdog
from inferd_server.processes.worker_deaths import WorkerDeaths
from inferd_server.settings.model import Settings
from inferd_server.transport.listening import check_host

log = logging.getLogger(__name__)
TAKING_CALLS = (
    *(messages.Listening, messages.Ping, messages.Ending, messages.Measurements, TrialVerdict),
    messages.ShowDrift,
    *(
        messages.Load,
        messages.Unload,
        messages.RegisterRegion,
        messages.NoRegion,
        messages.NoRegions,
    ),
    messages.LogChange,
)
HOLDING_MODELS = (
    *(messages.ModelRecords, messages.Loaded, messages.Ping),
    *(messages.Opened, messages.Taking),
)
MAY_SEND: Mapping[str, tuple[type, ...]] = {
    WORKER: (*HOLDING_MODELS, messages.Caught, messages.Ending),
    FRONT: (*TAKING_CALLS, messages.Quarantined, messages.Disconnected),
    REPLICA: (*TAKING_CALLS, *HOLDING_MODELS),
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
        plan: ServerPlan,
        failed: Callable[[], None],
        spawn_child: SpawnChild = spawn,
        started: Callable[[], None] = lambda: None,
        gauges: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            settings: checked.
            logs: started.
            plan: which processes.
            failed: called when the server cannot go on; `failure` says why.
            spawn_child: starts a process of a role, given its place and what it inherits.
            started: called, once and more often, after the start is over.
            gauges: returns what /metrics tells besides.

        Raises:
            SettingsError: a key of prediction tokens, or the file of sinks, cannot be used.
        """
        self._gauges = gauges
        self.failure = ""
        self._plan = plan
        self._settings = settings
        self._logs = logs
        self._told_failure = failed
        self._ports = Ports(settings)
        self._metrics = Metrics(lines=logs.recent)
        self._metrics.watch_devices(device_memory(wants_gpu(settings.engine)).read)
        self._lock = threading.RLock()
        self._regions = Registry()
        self._deaths = WorkerDeaths()
        self._ended = threading.Event()
        self._metrics_port = 0
        self._quarantine = Quarantine(settings.survival.quarantine_s, time.monotonic)
        self._hold_models()
        self._follow(started)
        self._starts = Starts(
            self._parts(),
            spawn_child,
            self._children.failures,
            lambda: self._condition.now,
            lambda: self._condition.taking_calls,
        )

    def _hold_models(self) -> None:
        """Make what knows the processes and their models."""
        plan, settings = self._plan, self._settings
        self._links = Links(plan.fronts, layout_of(settings.split), plan.workers)
        self._children = Children(self._links, self._lock, self._events(), replicas=plan.replicas)
        self._totals = Totals(self._children.everyone, self._own_metrics)
        self._alerts = make_watch(settings.alerts, self._totals.collector.collect, time.monotonic)
        self._metrics_server = MetricsServer(
            self._totals,
            settings.listen.metrics_max_connections,
            make_page(settings, PageSources(self._totals.metrics, self._shown, self._alerts.told)),
        )
        references = References(settings.reference_folder(os.environ))
        self._judge = judge_of(settings.drift, references, self._drift)
        placements = Placements(settings.repository.model_repository, plan.devices)
        self._placements = None if plan.replicas else placements
        self._holders = Holders(self._lock, self._placements, self._totals.busy)

    def _follow(self, started: Callable[[], None]) -> None:
        """Make what follows the processes, and answers for all of them."""
        settings, endpoints = self._settings.survival, self._children.live_endpoints
        self._vigil = Watchdog(settings, time.monotonic, endpoints, bool(self._plan.replicas))
        self._condition = self._condition_of(started)
        self._shared_state = SharedState(
            self._children, self._regions, self._logs, self._totals, self._holders, self._judge
        )
        self.models = SharedModels(self._shared_state, self._holders)

    def _parts(self) -> ServerParts:
        return ServerParts(
            self._settings,
            self._links,
            self._ports,
            self._logs,
            self._holders,
            self._placements,
            self._deaths,
            self._quarantine,
            self._regions,
            self._plan.replicas,
            token_keys(self._settings.feedback),
        )

    def _events(self) -> Events:
        return Events(
            spawn=self._spawn,
            handle=self._handle,
            changed=self._changed,
            died=self._died,
            gave_up=self._give_up,
            limit=self._limit,
        )

    def _spawn(self, role: str, index: int) -> Child:
        return self._starts.start(role, index)

    def _changed(self) -> None:
        self._condition.update()

    def _condition_of(self, started: Callable[[], None]) -> ServerCondition:
        known = Sources(self._children, self._holders, self._vigil, self._metrics, self._where)
        count = self._plan.replicas or self._plan.fronts
        return ServerCondition(self._settings, known, self._lock, self._plan.role, count, started)

    def _where(self) -> Mapping[str, object]:
        listen = {"host": self._settings.listen.host, "metrics_port": self._metrics_port}
        return {**listen, **self._ports.numbers}

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
        self._alerts.start()
        threading.Thread(target=self._watch, name="vigil", daemon=True).start()
        if self._settings.drift.drift_cpu_share:
            self._judge.start()

    def drain(self, hurry: threading.Event) -> None:
        """Stop: readiness goes first, then new calls are refused, running ones finish.

        Args:
            hurry: set to skip whatever is being waited for.
        """
        lifecycle = self._settings.lifecycle
        self._condition.drain()
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
        self._judge.stop()
        self._children.stop()
        holders = self._holders.counting()
        patience = HURRY_S if any(map(self._vigil.silent, holders)) else ANSWER_S
        answers([child.channel.ask(messages.Stop(0.0)) for child in holders], patience)
        self._children.end(self._vigil.silent)
        self._metrics_server.stop()
        self._alerts.stop()
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
                self._condition.heard(child, transport)
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
            case messages.Disconnected(ran, worker):
                self._limit_batches(ran)
                self._children.disconnected(child, worker)
            case _:
                return self._shared_state.answer(message)
        return None

    def _judged(self, child: Child, verdict: TrialVerdict) -> None:
        if self._vigil.judged(child, verdict):
            self._condition.update()

    def _quarantined(self, found: messages.Quarantined) -> None:
        self._quarantine.learn(found.marks)
        for front in self._children.live_endpoints():
            front.channel.tell(found)

    def _limit_batches(self, ran: Mapping[tuple[str, int], int]) -> None:
        """See to it that batches that used up the memory are not formed again."""
        with self._lock:
            limits = self._deaths.ran(ran)
            for worker in self._children.live_workers() if limits else ():
                worker.channel.tell(messages.BatchLimits(limits))
        for (name, version), rows in limits.items():
            where = {"model": name, "version": version, "most_rows": rows}
            log.error("memory ran out in a batch of a model, which gets smaller ones", extra=where)

    def _tell_models(self, child: Child, models: messages.ModelRecords) -> None:
        with self._lock:
            self._holders.told(child, models)
            self._know_models()
        self._condition.let_listen()
        self._condition.update()

    def _know_models(self) -> None:
        """Tell those of the models who do not have them themselves. With the lock held."""
        models = self._holders.models
        ready = {(r.name, r.version) for r in models.records if r.state == State.READY.value}
        self._vigil.keep(ready)
        self._deaths.served({name for name, _ in ready})
        if self._placements is not None:
            for front in self._children.live_endpoints():
                front.channel.tell(models)

    def _loaded(self, child: Child, failed: frozenset[str]) -> None:
        self._shared_state.catch_up()
        if not self._holders.tried(child, failed):
            return
        self._children.useful(child)
        self._holders.join(child)
        with self._lock:
            self._know_models()
        self._condition.let_listen()
        self._condition.loaded(failed)

    def _died(self, child: Child, code: int | None) -> None:
        self._totals.ended(child)
        self._condition.lost(child)
        with self._lock:
            if child.role != FRONT:
                self._blame(child, code)
                # For fronts that come now: the others know it, and what they had to do about it.
                self._holders.lost(child)
                self._know_models()
        self._condition.let_listen()

    def _blame(self, child: Child, code: int | None) -> None:
        """Leave models out that ended processes while they were loaded."""
        engine, loading = self._settings.engine, self._holders.loading(child)
        if wants_gpu(engine) and engine.cpu_fallback and not self._starts.leaves_gpu(child):
            # The processor is tried first.
            loading = set()
        for name in self._deaths.died(code, loading):
            log.error("a model is left out", extra={"model": name, "why": LEFT_OUT})
            self._children.forgive(child.name)

    def _own_metrics(self) -> MetricsSnapshot:
        processes = {
            "inferd_processes": 1.0 + len(self._children.everyone()),
            "inferd_shared_memory_bytes": self._links.nbytes,
            **self._gauges(),
            **self._alerts.gauges(),
        }
        roles = (REPLICA,) if self._plan.replicas else (WORKER, FRONT)
        restarts = {role: self._children.restarts[role] for role in roles}
        devices = states_of(
            self._plan.devices,
            self._holders.models.records,
            self._holders.working,
            self._children.worker_restarts,
        )
        drifted = gauges_of(self._judge.reports())
        now = self._metrics.snapshot()
        return replace(
            now,
            gauges={**now.gauges, **processes},
            restarts=restarts,
            devices={**now.devices, **devices},
            drifted=drifted,
        )

    def _shown(self) -> list[ShownModel]:
        return shown(self._holders.models.records, self._condition.now.sick)

    def _drift(self) -> Mapping[Key, DriftCounts]:
        """Return what all processes counted of drift; nobody is asked where no model is watched."""
        about = [record.description for record in self._holders.models.records]
        if not any(one is not None and one.drift for one in about):
            return {}
        return self._totals.metrics().drift

    def _limit(self, role: str) -> int:
        """Return how many starts in a row of a process may fail."""
        others = self._placements is not None and len(self._placements.workers) > 1
        return FAILURES_ON_GPU - 1 if role == WORKER and others else LIMIT

    def _give_up(self, role: str, index: int, reason: str) -> None:
        """Go on without a worker whose GPU is broken, if there are others; else end."""
        placements = self._placements
        if role == WORKER and placements is not None and len(placements.workers) > 1:
            where = {"device": placements.devices[index].uuid, "why": reason}
            log.error("a GPU is given up: its models go to others", extra=where)
            threading.Thread(
                target=self._move, args=(index, reason), name="move", daemon=True
            ).start()
            return
        self.failure = self.failure or reason
        self._told_failure()

    def _move(self, worker: int, reason: str) -> None:
        self._holders.move(worker, reason)
        with self._lock:
            self._know_models()
        self._condition.update()

    def _watch(self) -> None:
        """Look after the processes until the end."""
        while not self._ended.wait(TICK_S):
            try:
                self._look()
            except Exception:
                log.exception("a look at the processes failed")

    def _look(self) -> None:
        self._vigil.look(self._children.everyone())
        for child, why in self._vigil.hung(self._workers_of):
            self._children.kill(child, why)
        self._condition.update()

    def _workers_of(self, model: str) -> Sequence[Child]:
        """Return the workers that live and have a model."""
        placements, workers = self._placements, self._children.live_workers()
        if placements is None:
            return ()
        return [worker for worker in workers if placements.holds(worker.index, model)]
