"""A front process: transport and admission; its requests run in the worker."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from inferd_server.cache.making import make_cache
from inferd_server.control import messages
from inferd_server.control.blocking import MOST_CHANGES, BlockingThread, BlockingThreads
from inferd_server.control.channel import Channel
from inferd_server.control.later import after
from inferd_server.control.measurements import Measured
from inferd_server.errors import InferdError
from inferd_server.front.cacheable import owners
from inferd_server.front.canary import Canaries
from inferd_server.front.catalog import Catalog
from inferd_server.front.control import Diagnostics, ModelControl, SharedMemory
from inferd_server.front.dispatch import Dispatch
from inferd_server.front.elsewhere import RemoteCounters, RemoteLoads, RemoteLogs, RemoteRegions
from inferd_server.front.health import HealthBoard
from inferd_server.front.infer import Infer
from inferd_server.front.infer_request import Telemetry
from inferd_server.front.inspection import Inspection, ServerState
from inferd_server.front.probing import ProbePort
from inferd_server.front.quarantine import Quarantine
from inferd_server.front.regions import RegionTable
from inferd_server.front.routes import Services, routes, statuses
from inferd_server.idle_heap import IdleHeap
from inferd_server.link.memory import LinkMemory
from inferd_server.link.sending import FrontLink
from inferd_server.memory import give_back
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.control import control_allowed
from inferd_server.security.opening import open_access
from inferd_server.security.refusals import Refusals
from inferd_server.transport.call import Transport
from inferd_server.version import VERSION

log = logging.getLogger(__name__)


class FrontProcess:
    """The parts of a front, put together."""

    def __init__(
        self,
        place: messages.Place,
        channel: Channel,
        transport: Transport,
        logs: LogControl,
        probe: Transport | None = None,
        certificates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        self._place = place
        self._certificates = certificates
        self._channel = channel
        self._transport = transport
        self._logs = logs
        self._started = time.monotonic()
        self._condition = messages.Condition(ready=False, draining=False)
        self._link = FrontLink(LinkMemory(place.links[0], place.layout), place.wake_worker)
        survival = place.settings.survival
        self._quarantine = Quarantine(survival.quarantine_s, time.monotonic)
        self._dispatch = Dispatch(
            self._link,
            self._quarantine,
            survival.retry_wait_s,
            time.monotonic,
            after,
            lambda mark, until: channel.tell(messages.Quarantined(((mark, until),))),
        )
        self._catalog = Catalog(self._dispatch, self._changed)
        self._regions = RegionTable()
        self._metrics = Metrics()
        self._health = HealthBoard()
        self._probe = ProbePort(probe, self._health)
        self._publishing = threading.Lock()
        self._listening = False
        self._loads, self._unloads = BlockingThreads(MOST_CHANGES), BlockingThreads(MOST_CHANGES)
        self._asking, self._trying = BlockingThread(), BlockingThread()
        self._canaries = Canaries(self._catalog, time.monotonic, channel.tell, self._metrics.tried)
        telemetry = Telemetry(
            self._metrics, time.monotonic, time.time, BoundedLog(log, time.monotonic)
        )
        self._cache = make_cache(place.settings.cache, time.monotonic, time.time)
        self._idle_heap = IdleHeap(transport.bounds.traffic, self._give_back)
        self._infer = Infer(self._catalog, self._regions, telemetry, self._cache)

    def run(self) -> None:
        """Serve, and do what is asked until the supervisor is gone."""
        threading.Thread(target=self._answer, name="answers", daemon=True).start()
        self._channel.read(self._handle)

    def _listen(self) -> None:
        """Take calls; the process ends if it cannot."""
        settings = self._place.settings
        try:
            refusals = Refusals(self._metrics, time.monotonic)
            access = open_access(settings, time.monotonic, refusals)
            self._transport.start(
                self._place.address,
                routes(
                    self._services(),
                    self._loads.submit,
                    self._unloads.submit,
                    self._asking.submit,
                    access,
                    refusals.of_bounds,
                ),
            )
            self._probe.start(self._place.probe_address)
        except Exception as error:
            planned = isinstance(error, InferdError)
            log.error("cannot listen", exc_info=None if planned else error)
            self._channel.tell(messages.Ending(f"it cannot listen: {error}"))
            self._channel.close()
            return
        self._listening = True
        self._asking.start()
        self._trying.start()
        self._idle_heap.start()
        self._channel.tell(messages.Listening(self._transport.name))

    def _answer(self) -> None:
        """Answer requests as the worker completes them."""
        while True:
            os.eventfd_read(self._place.wake_fronts[0])
            try:
                self._link.consume()
            except Exception:
                log.exception("answers could not be sent")

    def _handle(self, message: object) -> object:
        match message:
            case messages.Ping():
                self._channel.tell(message)
            case messages.TryModels(seconds):
                self._trying.submit(partial(self._canaries.round, seconds))
            case messages.Models(records, settled):
                self._catalog.update(records, settled)
            case messages.Quarantined(marks):
                self._quarantine.learn(marks)
            case messages.Condition():
                self._condition = message
                self._publish()
                if not self._listening:
                    # Regions and models were told before.
                    self._listen()
            case messages.WorkerGone(reason):
                self._lose(reason)
            case _:
                return self._do(message)
        return None

    def _do(self, message: object) -> object:
        """Do or answer what all processes are asked."""
        match message:
            case messages.Region(name, key, offset, byte_size):
                self._regions.register(name, key, offset, byte_size)
            case messages.NoRegion(name):
                self._regions.unregister(name)
            case messages.NoRegions():
                self._regions.unregister_all()
            case messages.LogChange(changes):
                self._logs.change(changes)
            case messages.Measurements():
                return self._measure()
            case messages.Stop(grace):
                self._transport.stop(grace)
                self._probe.stop()
        return None

    def _lose(self, reason: str) -> None:
        # Before the link begins anew: nothing may be sent to a model of the dead worker.
        self._catalog.lose(reason)
        ran = self._dispatch.lose(reason)
        self._channel.tell(messages.Disconnected(ran))

    def _give_back(self) -> None:
        # A GPU's driver may know the pages by their place in memory, and those stay.
        if not self._place.settings.engine.plan_store:
            self._catalog.release_idle()
        give_back()

    def _measure(self) -> Measured:
        handles = [entry.handle for entry in self._catalog.entries()]
        held = {
            "inferd_slots_in_use": self._link.in_flight,
            "inferd_input_bytes_held": self._link.inputs.held,
            "inferd_requests_held": self._dispatch.held,
            **self._transport.bounds.gauges(),
        }
        return Measured(
            replace(
                self._metrics.snapshot(),
                gauges={
                    **held,
                    **self._catalog.gauges(),
                    **self._cache.gauges(),
                    **self._certificates(),
                },
            ),
            {h.number: h.statistics.read() for h in handles if h is not None},
        )

    def _services(self) -> Services:
        settings = self._place.settings
        state = ServerState(
            version=VERSION,
            transport=self._transport.name,
            uptime=lambda: time.monotonic() - self._started,
            ready=lambda: self._condition.ready,
            draining=lambda: self._condition.draining,
            live=lambda: self._condition.live,
            sick=lambda: sick_of(self._condition),
        )
        control, says_who = settings.repository.model_control, settings.security.says_who
        allowed = control_allowed(control, settings.listen.host, says_who)
        return Services(
            infer=self._infer,
            inspection=Inspection(self._catalog, state, RemoteCounters(self._channel)),
            models=ModelControl(RemoteLoads(self._channel), allowed),
            memory=SharedMemory(RemoteRegions(self._channel, self._regions)),
            diagnostics=Diagnostics(RemoteLogs(self._channel, self._logs), self._catalog),
            health=self._health,
        )

    def _changed(self) -> None:
        self._infer.forget()
        self._publish()
        self._dispatch.settle(self._catalog.successor)

    def _publish(self) -> None:
        with self._publishing:
            now = self._condition
            entries = self._catalog.entries()
            self._cache.retain(owners(entries))
            self._health.update(statuses(entries, now.ready, now.draining, now.live, sick_of(now)))


def sick_of(condition: messages.Condition) -> Mapping[tuple[str, int], str]:
    """Return the versions that do not answer, and why."""
    return {(model, version): why for model, version, why in condition.sick}
