"""A front process: transport and admission; its requests run in the worker."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial

from inferd_server.errors import InferdError
from inferd_server.memory import give_back
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.endpoint import Endpoint
from inferd_server.processes.link.front_end import FrontLink
from inferd_server.processes.link.memory import LinkMemory
from inferd_server.processes.link.polling import AnswerPoll
from inferd_server.processes.messages import Measured
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.remote_models import Catalog
from inferd_server.processes.retry import Dispatch
from inferd_server.processes.supervisor_client import remote_changes
from inferd_server.threads import BlockingThread, after
from inferd_server.transport.call import Transport

log = logging.getLogger(__name__)


class FrontProcess:
    """The parts of a front, put together."""

    def __init__(
        self,
        place: messages.ProcessPlace,
        channel: Channel,
        transport: Transport,
        logs: LogControl,
        probe: Transport | None = None,
        certificates: Callable[[], Mapping[str, float]] = dict,
        poll: AnswerPoll | None = None,
    ) -> None:
        """Put the parts together; nothing listens.

        Args:
            place: what it is.
            channel: to the supervisor.
            transport: not started.
            logs: started.
            probe: for the port of probes, not started; None if there is none.
            certificates: returns what /metrics tells of them.
            poll: that the transport's thread does between events; None: a thread answers alone.
        """
        self._place = place
        self._channel = channel
        self._transport = transport
        self._logs = logs
        self._condition = messages.Condition(ready=False, draining=False)
        self._link = FrontLink(LinkMemory(place.links[0], place.layout), place.wake_worker)
        if poll is not None:
            poll.watch(self._link)
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
        self._metrics = Metrics()
        self._listening = False
        self._asking, self._trying = BlockingThread(), BlockingThread()
        self._endpoint = Endpoint(
            place.settings,
            transport,
            self._catalog,
            self._metrics,
            lambda: self._condition,
            channel.tell,
            self._give_back,
            lambda: {**self._gauges(), **certificates()},
            probe,
        )

    def run(self) -> None:
        """Serve, and do what is asked until the supervisor is gone."""
        threading.Thread(target=self._answer, name="answers", daemon=True).start()
        self._channel.read(self._handle)

    def _listen(self) -> None:
        """Take calls; the process ends if it cannot."""
        changes = remote_changes(
            self._channel, self._endpoint.regions, self._logs, self._asking.submit
        )
        try:
            self._endpoint.start(self._place.address, self._place.probe_address, changes)
        except Exception as error:
            planned = isinstance(error, InferdError)
            log.error("cannot listen", exc_info=None if planned else error)
            self._channel.tell(messages.Ending(f"it cannot listen: {error}"))
            self._channel.close()
            return
        self._listening = True
        self._asking.start()
        self._trying.start()
        self._channel.tell(messages.Listening(self._transport.name))

    def _answer(self) -> None:
        """Answer requests as the worker completes them."""
        while True:
            os.eventfd_read(self._place.wake_fronts[0])
            self._link.answer()

    def _handle(self, message: object) -> object:
        match message:
            case messages.Ping():
                self._channel.tell(message)
            case messages.TryModels(seconds):
                self._trying.submit(partial(self._endpoint.canaries.round, seconds))
            case messages.ModelRecords(records, settled):
                self._catalog.update(records, settled)
            case messages.Quarantined(marks):
                self._quarantine.learn(marks)
            case messages.Condition():
                self._condition = message
                self._endpoint.publish()
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
            case messages.RegisterRegion(name, key, offset, byte_size):
                self._endpoint.regions.register(name, key, offset, byte_size)
            case messages.NoRegion(name):
                self._endpoint.regions.unregister(name)
            case messages.NoRegions():
                self._endpoint.regions.unregister_all()
            case messages.LogChange(changes):
                self._logs.change(changes)
            case messages.Measurements():
                return self._measure()
            case messages.Stop(grace):
                self._endpoint.stop(grace)
                self._endpoint.close(0.0)
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
        return Measured(
            self._metrics.snapshot(),
            {(h.name, h.version): h.statistics.read() for h in handles if h is not None},
        )

    def _gauges(self) -> Mapping[str, float]:
        return {
            "inferd_slots_in_use": self._link.in_flight,
            "inferd_input_bytes_held": self._link.inputs.held,
            "inferd_requests_held": self._dispatch.held,
            **self._catalog.gauges(),
        }

    def _changed(self) -> None:
        self._endpoint.models_changed()
        self._dispatch.settle(self._catalog.successor)
