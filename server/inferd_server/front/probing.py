"""A plaintext port where probes ask for health, and where nothing else is answered."""

from __future__ import annotations

from inferd_server.front.health import HealthBoard
from inferd_server.front.routes import health_routes
from inferd_server.transport.call import Transport


class ProbePort:
    """Started and stopped with a server; does nothing where there is none."""

    def __init__(self, transport: Transport | None, health: HealthBoard) -> None:
        self.port = -1
        """Where it listens; -1: nowhere."""
        self._transport = transport
        self._health = health

    def start(self, address: str) -> None:
        """Listen on "host:port".

        Raises:
            AddressInUse: the address cannot be bound.
        """
        if self._transport is not None:
            self.port = self._transport.start(address, health_routes(self._health))

    def stop(self) -> None:
        """Listen no more; the last thing of a server, which is alive while it finishes calls."""
        if self._transport is not None and self.port >= 0:
            self._transport.stop(0.0)
