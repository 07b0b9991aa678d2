"""A process that takes calls under the supervisor: the part that a front and a replica share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from functools import partial

from inferd_server.errors import InferdError
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes import messages
from inferd_server.processes.channel import Channel
from inferd_server.processes.endpoint import Endpoint
from inferd_server.processes.supervisor_client import remote_changes
from inferd_server.threads import BlockingThread
from inferd_server.transport.call import Transport

log = logging.getLogger(__name__)


class EndpointProcess(ABC):
    """An endpoint, and what the supervisor tells and asks everybody who has one."""

    _endpoint: Endpoint
    """Made by the subclass, of its own models."""

    def __init__(
        self,
        place: messages.ProcessPlace,
        channel: Channel,
        transport: Transport,
        logs: LogControl,
    ) -> None:
        """Keep what the process is made of.

        Args:
            place: what it is.
            channel: to the supervisor.
            transport: not started.
            logs: started.
        """
        self._place = place
        self._channel = channel
        self._transport = transport
        self._logs = logs
        self._condition = messages.Condition(ready=False, draining=False, loaded=False)
        self._listening = False
        self._asking, self._trying = BlockingThread(), BlockingThread()

    def _listen(self) -> bool:
        """Take calls; the process ends if it cannot. True if that begins now."""
        if self._listening:
            return False
        place, regions = self._place, self._endpoint.regions
        changes = remote_changes(self._channel, regions, self._logs, self._asking.submit)
        try:
            self._endpoint.start(place.address, place.probe_address, changes)
        except Exception as error:
            planned = isinstance(error, InferdError)
            log.error("cannot listen", exc_info=None if planned else error)
            self._channel.tell(messages.Ending(f"it cannot listen: {error}"))
            self._channel.close()
            return False
        self._listening = True
        self._asking.start()
        self._trying.start()
        self._channel.tell(messages.Listening(self._transport.name))
        return True

    def _handle_common(self, message: object) -> object:
        """Do or answer what every such process is told and asked."""
        match message:
            case messages.Ping():
                self._channel.tell(message)
            case messages.TryModels(seconds):
                self._trying.submit(partial(self._endpoint.checks.round, seconds))
            case messages.Condition():
                self._condition = message
                self._endpoint.publish()
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
                self._close_models()
                self._endpoint.close(0.0)
        return None

    @abstractmethod
    def _measure(self) -> messages.Measured:
        """Return what was counted so far."""

    @abstractmethod
    def _close_models(self) -> None:
        """Close the models of this process; no call is open any more."""
