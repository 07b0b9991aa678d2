"""A front process: transport and admission; its requests run in the workers."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Mapping

from inferd_server.memory import give_back
from inferd_server.monitoring.logs import LogControl
from inferd_server.monitoring.metrics import Metrics
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.endpoint import Endpoint
from inferd_server.processes.endpoint_process import EndpointProcess
from inferd_server.processes.front_links import FrontLinks
from inferd_server.processes.messages import Measured
from inferd_server.processes.quarantine import Quarantine
from inferd_server.processes.remote_models import RemoteModels
from inferd_server.processes.retry import RetryingLink
from inferd_server.threads import after
from inferd_server.transport.call import Transport


class FrontProcess(EndpointProcess):
    """The parts of a front, put together."""

    def __init__(
        self,
        place: messages.ProcessPlace,
        channel: Channel,
        transport: Transport,
        logs: LogControl,
        links: FrontLinks,
        probe: Transport | None = None,
        certificates: Callable[[], Mapping[str, float]] = dict,
    ) -> None:
        """Put the parts together; nothing listens.

        Args:
            place: what it is.
            channel: to the supervisor.
            transport: not started; its work between events is the links' `turn`.
            logs: started.
            links: to the workers.
            probe: for the port of probes, not started; None if there is none.
            certificates: returns what /metrics tells of them.
        """
        super().__init__(place, channel, transport, logs)
        self._links = links
        if probe is None:
            # Two transports share what core sleeps on: neither would hear of all that is its own.
            transport.wake_by(place.wake_fronts[0])
        survival = place.settings.survival
        self._quarantine = Quarantine(survival.quarantine_s, time.monotonic)
        self._retrying = RetryingLink(
            self._links,
            self._quarantine,
            survival.retry_wait_s,
            time.monotonic,
            after,
            lambda mark, until: channel.tell(messages.Quarantined(((mark, until),))),
        )
        self._metrics = Metrics(lines=logs.recent)
        self._remote_models = RemoteModels(self._retrying, self._changed, self._metrics)
        self._endpoint = self._endpoint_with(probe, certificates)

    def _endpoint_with(
        self, probe: Transport | None, certificates: Callable[[], Mapping[str, float]]
    ) -> Endpoint:
        return Endpoint(
            self._place.settings,
            self._place.token_keys,
            self._transport,
            self._remote_models,
            self._metrics,
            lambda: self._condition,
            self._channel.tell,
            self._give_back,
            lambda: {**self._gauges(), **certificates()},
            lambda: self._links.busy,
            probe,
        )

    def run(self) -> None:
        """Serve, and do what is asked until the supervisor is gone."""
        self._channel.read(self._handle)

    def _await_answers(self) -> None:
        """Have answers sent: by the transport's own thread, or by another one where it cannot."""
        if not self._transport.woken:
            threading.Thread(target=self._answer, name="answers", daemon=True).start()

    def _answer(self) -> None:
        """Answer requests as the workers complete them."""
        wake = self._place.wake_fronts[0]
        while True:
            select.select([wake], [], [])
            os.eventfd_read(wake)
            self._links.answer()

    def _handle(self, message: object) -> object:
        match message:
            case messages.ModelRecords():
                self._remote_models.update(message.records, message.settled, message.labels)
            case messages.Quarantined(marks):
                self._quarantine.learn(marks)
            case messages.WorkerGone(reason, worker):
                self._lose(reason, worker)
            case messages.Condition():
                self._handle_common(message)
                # Regions and models were told before.
                if self._listen():
                    self._await_answers()
            case _:
                return self._handle_common(message)
        return None

    def _lose(self, reason: str, worker: int) -> None:
        # Before the link begins anew: nothing may be sent to a model of the dead worker.
        self._remote_models.lose(reason, worker)
        ran = self._retrying.lose(reason, worker)
        self._channel.tell(messages.Disconnected(ran, worker))
        # What another worker serves, too, goes there at once.
        self._retrying.settle(self._remote_models.successor)

    def _give_back(self) -> None:
        # A GPU's driver may know the pages by their place in memory, and those stay.
        if not self._place.settings.engine.plan_store:
            self._remote_models.release_idle()
        give_back()

    def _measure(self) -> Measured:
        handles = [entry.handle for entry in self._remote_models.entries()]
        return Measured(
            self._metrics.snapshot(),
            {(h.name, h.version): h.statistics.read() for h in handles if h is not None},
        )

    def _close_models(self) -> None:
        """Do nothing: they are the workers'."""

    def _gauges(self) -> Mapping[str, float]:
        return {
            "inferd_slots_in_use": self._links.in_flight,
            "inferd_input_bytes_held": self._links.inputs.held,
            "inferd_requests_held": self._retrying.held,
            **self._remote_models.gauges(),
        }

    def _changed(self) -> None:
        self._endpoint.models_changed()
        self._retrying.settle(self._remote_models.successor)
