"""The condition of a server of several processes: ready or not, and told to everybody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from inferd_server.models.readiness import why_not_ready
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes import messages
from inferd_server.processes.children import Children
from inferd_server.processes.holders import Holders
from inferd_server.processes.spawn import FRONT, REPLICA, Child
from inferd_server.processes.together import Version
from inferd_server.processes.watchdog import SILENT, ServerFacts, Watchdog, diagnose
from inferd_server.settings.model import Settings
from inferd_server.version import VERSION

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the condition of a server is known from."""

    children: Children
    holders: Holders
    vigil: Watchdog
    metrics: Metrics
    where: Callable[[], Mapping[str, object]]
    """Returns the ports, for the log."""


class ServerCondition:
    """Follows the processes, and tells them what is true of the server as a whole.

    Any thread may call any method.
    """

    def __init__(
        self,
        settings: Settings,
        known: Sources,
        lock: AbstractContextManager[object],
        role: str,
        count: int,
        started: Callable[[], None],
    ) -> None:
        """Begin unready.

        Args:
            settings: checked.
            known: where it is known from.
            lock: may be taken again by whoever has it.
            role: of the processes that take calls.
            count: of these.
            started: called, once and more often, after the start is over.
        """
        self._settings = settings
        self._known = known
        self._lock = lock
        self._role = role
        self._count = count
        self._started = started
        # Of the processes that take calls.
        self._transports: dict[Child, str] = {}
        # When requests were served last, once they were.
        self._served: float | None = None
        self._draining = False
        self._listening = False
        self.now = messages.Condition(ready=False, draining=False, loaded=False)
        """As it was told last."""

    @property
    def taking_calls(self) -> bool:
        """True while any process takes calls."""
        return bool(self._transports)

    def drain(self) -> None:
        """Be unready from now on, for good."""
        with self._lock:
            self._draining = True
        self.update()

    def heard(self, child: Child, transport: str) -> None:
        """Note that a process takes calls, over this transport."""
        known = self._known
        with self._lock:
            self._transports[child] = transport
            known.metrics.server(VERSION, ",".join(sorted(set(self._transports.values()))))
            again = self._listening
            first = not again and len(self._transports) == self._count
            self._listening = again or first
        if again:
            log.info("listening again", extra={"child": child.name})
        if first:
            log.info("listening", extra={**known.where(), f"{self._role}s": self._count})
        if child.role == FRONT:
            known.children.useful(child)
        self.update()

    def lost(self, child: Child) -> None:
        """Note that a process is gone."""
        with self._lock:
            self._transports.pop(child, None)

    def let_listen(self) -> None:
        """Have the replicas take calls that have what all have, or whatever is left of them."""
        holders = self._known.holders
        with self._lock:
            if self._role != REPLICA or self._draining:
                return
            if self._listening and not self._transports:
                holders.count_all()
            for child in holders.counting():
                if child not in self._transports:
                    child.channel.tell(messages.Listen())

    def loaded(self, failed: frozenset[str]) -> None:
        """Note that a process tried to load everything, and tell if that does not suffice."""
        self.update()
        without = self._settings.repository.ready_without_models
        if not self.now.ready and (failed or not (self._known.holders.models.wanted or without)):
            log.error("not ready", extra=why_not_ready(failed))

    def update(self) -> None:
        """Tell everybody when the server became ready, or is so no more."""
        known = self._known
        if self._listening and known.holders.loaded:
            self._started()
        with self._lock:
            now = diagnose(self._facts())
            before, self.now = self.now, now
            if now == before:
                return
            known.metrics.ready(now.ready)
            for child in known.children.live_endpoints():
                child.channel.tell(now)
            if before.ready and not now.ready and not now.draining:
                log.error("not ready")
        if now.ready and not before.ready:
            # It waits for the fronts, whose messages may have led here.
            threading.Thread(target=self._announce, name="announce", daemon=True).start()

    def _announce(self) -> None:
        """Log that the server is ready, once every front says so, however slow one is."""
        known = False
        while self.now.ready and not self._draining and not known:
            known = self._known.children.catch_up()
        with self._lock:
            if self.now.ready and not self._draining:
                log.info("ready")

    def _facts(self) -> ServerFacts:
        holders, vigil = self._known.holders, self._known.vigil
        serving, loaded, silent = self._serving(), holders.loaded, self._silent()
        now = time.monotonic()
        if serving and not silent and loaded:
            self._served = now
        repository = self._settings.repository
        return ServerFacts(
            draining=self._draining,
            listening=self._listening,
            serving=serving,
            silent=silent,
            loaded=loaded,
            wanted=holders.models.wanted,
            records=holders.models.records,
            sick={**vigil.sick(), **self._unanswering()},
            partial=holders.partial,
            strict=repository.strict_readiness,
            without_models=repository.ready_without_models,
            down_s=0.0 if self._served is None else now - self._served,
            repair_timeout_s=self._settings.survival.repair_timeout_s,
        )

    def _silent(self) -> bool:
        """True while a replica answers nothing, or no worker answers anything."""
        found = [self._known.vigil.silent(child) for child in self._known.holders.counting()]
        return any(found) if self._role == REPLICA else bool(found) and all(found)

    def _unanswering(self) -> Mapping[Version, str]:
        """Return the versions of which every worker is silent."""
        if self._role == REPLICA:
            return {}
        workers = self._known.children.live_workers()
        silent = {worker.index for worker in workers if self._known.vigil.silent(worker)}
        return {
            (record.name, record.version): SILENT
            for record in self._known.holders.models.records
            if silent and record.workers and silent.issuperset(record.workers)
        }

    def _serving(self) -> bool:
        """True while somebody who takes calls has models to ask."""
        if self._role != REPLICA:
            return self._known.children.serving
        return any(child in self._transports for child in self._known.holders.joined())
