"""The port that all fronts share."""

from __future__ import annotations

import errno
import socket
from typing import Any

from inferd_server.address import join_address
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
