"""The notifications for a service manager such as systemd (Type=notify)."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, MutableMapping

log = logging.getLogger(__name__)
VARIABLE = "NOTIFY_SOCKET"
READY, STOPPING = "READY=1", "STOPPING=1"


class ServiceManager:
    """Tells of the start and the end; nothing happens where nobody listens. Any thread may call.

    Source: sd_notify(3).
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Find out where it listens."""
        address = environment.get(VARIABLE, "")
        # An @ stands for the byte 0 of an abstract name.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._told: set[str] = set()

    def ready(self) -> None:
        """Tell once that the start is over."""
        self._tell(READY)

    def stopping(self) -> None:
        """Tell once that the end has begun."""
        self._tell(STOPPING)

    def _tell(self, state: str) -> None:
        if not self._address or state in self._told:
            return
        self._told.add(state)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                # Who does not listen must not keep the server from anything.
                manager.setblocking(False)
                manager.sendto(state.encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told", extra={"error": str(error)})


def taken_from(environment: MutableMapping[str, str] = os.environ) -> ServiceManager:
    """Return the service manager of this process, and leave none to the processes it starts."""
    manager = ServiceManager(dict(environment))
    environment.pop(VARIABLE, None)
    return manager
