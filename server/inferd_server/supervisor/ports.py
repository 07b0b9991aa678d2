"""The ports of a server whose fronts share them."""

from __future__ import annotations

from inferd_server.address import beside, is_unix
from inferd_server.settings.model import Settings
from inferd_server.supervisor.port import ReservedPort
from inferd_server.transport.listening import check_free


class Ports:
    """Held for the fronts from before the first one starts until the last one has ended."""

    def __init__(self, settings: Settings) -> None:
        """Hold nothing yet."""
        self._settings = settings
        self._grpc: ReservedPort | None = None
        self._probe: ReservedPort | None = None

    def open(self) -> None:
        """Take them.

        Raises:
            AddressInUse: somebody else has one.
        """
        host = self._settings.listen.host
        if is_unix(host):
            check_free(host)
        else:
            self._grpc = ReservedPort(host, self._settings.listen.grpc_port)
        if (port := self._settings.security.probe_port) >= 0:
            self._probe = ReservedPort(beside(host), port, "probe_port")

    @property
    def address(self) -> str:
        """Of the gRPC services."""
        return self._settings.listen.host if self._grpc is None else self._grpc.address

    @property
    def probe_address(self) -> str:
        """Of the health service for probes; empty: there is none."""
        return "" if self._probe is None else self._probe.address

    @property
    def numbers(self) -> dict[str, int]:
        """As the log tells them."""
        named = {"grpc_port": self._grpc, "probe_port": self._probe}
        return {name: port.port for name, port in named.items() if port is not None}

    def close(self) -> None:
        """Let them go. Safe to call twice."""
        for port in (self._grpc, self._probe):
            if port is not None:
                port.close()
