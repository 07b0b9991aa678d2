"""A front process: transport and admission; its requests run in the worker."""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace

from inferd_server.cache.making import make_cache
from inferd_server.control import messages
from inferd_server.control.blocking import BlockingThread
from inferd_server.control.channel import Channel
from inferd_server.control.measurements import Measured
from inferd_server.errors import InferdError, WorkerLost
from inferd_server.front.cacheable import owners
from inferd_server.front.catalog import Catalog
from inferd_server.front.control import Diagnostics, ModelControl, SharedMemory
from inferd_server.front.elsewhere import RemoteCounters, RemoteLoads, RemoteLogs, RemoteRegions
from inferd_server.front.health import HealthBoard
from inferd_server.front.infer import Infer
from inferd_server.front.inspection import Inspection, ServerState
from inferd_server.front.outcome import Telemetry
from inferd_server.front.probing import ProbePort
from inferd_server.front.regions import RegionTable
from inferd_server.front.routes import Services, routes, statuses
from inferd_server.link.memory import LinkMemory
from inferd_server.link.sending import FrontLink
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.control import control_allowed
from inferd_server.security.opening import open_access
from inferd_server.transport.call import Transport
from inferd_server.transport.status import code_name
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
    ) -> None:
        self._place = place
        self._channel = channel
        self._transport = transport
        self._logs = logs
        self._started = time.monotonic()
        self._condition = messages.Condition(ready=False, draining=False)
        self._link = FrontLink(LinkMemory(place.links[0], place.layout), place.wake_worker)
        self._catalog = Catalog(self._link, self._changed)
        self._regions = RegionTable()
        self._metrics = Metrics()
        self._health = HealthBoard()
        self._probe = ProbePort(probe, self._health)
        self._publishing = threading.Lock()
        self._listening = False
        self._blocking, self._asking = BlockingThread(), BlockingThread()
        telemetry = Telemetry(self._metrics, time.monotonic, time.time)
        self._cache = make_cache(place.settings.cache, time.monotonic, time.time)
        self._infer = Infer(self._catalog, self._regions, telemetry, self._cache)

    def run(self) -> None:
        """Serve, and do what is asked until the supervisor is gone."""
        threading.Thread(target=self._answer, name="answers", daemon=True).start()
        self._channel.read(self._handle)

    def _listen(self) -> None:
        """Take calls; the process ends if it cannot."""
        settings = self._place.settings
        try:
            access = open_access(settings, time.monotonic, self._refused)
            self._transport.start(
                self._place.address,
                routes(self._services(), self._blocking.submit, self._asking.submit, access),
            )
            self._probe.start(self._place.probe_address)
        except Exception:
            log.exception("cannot listen")
            self._channel.close()
            return
        self._listening = True
        self._blocking.start()
        self._asking.start()
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
            case messages.Models(records):
                self._catalog.update(records)
            case messages.Condition():
                self._condition = message
                self._publish()
                if not self._listening:
                    # Regions and models were told before.
                    self._listen()
            case messages.WorkerGone(reason):
                self._lose(reason)
            case messages.Region(name, key, offset, byte_size):
                self._regions.register(name, key, offset, byte_size)
            case messages.NoRegion(name):
                self._regions.unregister(name)
            case messages.LogChange(changes):
                self._logs.change(changes)
            case messages.Measurements():
                return self._measure()
            case messages.Stop(grace):
                self._transport.stop(grace)
                self._probe.stop()
        return None

    def _refused(self, error: InferdError) -> None:
        self._metrics.refused(None, code_name(error))

    def _lose(self, reason: str) -> None:
        # Before the link begins anew: nothing may be sent to a model of the dead worker.
        self._catalog.lose(reason)
        self._link.lose(WorkerLost(f"{reason}; the request may be sent again"))
        self._channel.tell(messages.Disconnected())

    def _measure(self) -> Measured:
        handles = [entry.handle for entry in self._catalog.entries()]
        held = {
            "inferd_slots_in_use": self._link.in_flight,
            "inferd_input_bytes_held": self._link.inputs.held,
        }
        return Measured(
            replace(self._metrics.snapshot(), gauges={**held, **self._cache.gauges()}),
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
        )
        control, says_who = settings.repository.model_control, settings.security.says_who
        allowed = control_allowed(control, settings.listen.host, says_who)
        return Services(
            infer=self._infer,
            inspection=Inspection(self._catalog, state, RemoteCounters(self._channel)),
            models=ModelControl(RemoteLoads(self._channel), allowed),
            memory=SharedMemory(RemoteRegions(self._channel, self._regions)),
            diagnostics=Diagnostics(RemoteLogs(self._channel, self._logs)),
            health=self._health,
        )

    def _changed(self) -> None:
        self._infer.forget()
        self._publish()

    def _publish(self) -> None:
        with self._publishing:
            now, entries = self._condition, self._catalog.entries()
            self._cache.retain(owners(entries))
            self._health.update(statuses(entries, now.ready, now.draining))
