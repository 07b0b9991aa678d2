"""The ports of a server whose fronts share them."""

from __future__ import annotations

import errno
import socket
from typing import Any

from inferd_server.address import beside, is_unix, join_address
from inferd_server.settings.model import Settings
from inferd_server.transport.listening import check_free, unavailable


class ReservedPort:
    """A port bound and never listened on: fronts beside it share what arrives there."""

    def __init__(self, host: str, port: int, setting: str = "grpc_port") -> None:
        """Bind the port; 0 takes a free one. `setting` is where it stands, for the sentence.

        Raises:
            AddressInUse: it cannot be had, or somebody else shares it already.
        """
        wanted = join_address(host, port)
        check_free(wanted, setting=setting)
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            self._bind(place)
        except OSError as error:
            self._socket.close()
            raise unavailable(wanted, error, setting) from error
        self.port = int(self._socket.getsockname()[1])
        self.address = join_address(host, self.port)

    def _bind(self, place: Any) -> None:
        try:
            self._socket.bind(place)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            # Nobody listens there: connections of a server that ended are closing. Not at once,
            # because others may take what was bound so.
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(place)

    def close(self) -> None:
        """Give the port back."""
        self._socket.close()


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
