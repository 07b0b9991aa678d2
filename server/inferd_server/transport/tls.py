"""Certificates, as gRPC takes them, renewed without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server shows its callers, and what it asks of them; PEM."""

    private_key: bytes
    certificate_chain: bytes
    """The server's certificate first."""
    client_ca: bytes | None = None
    """Certificates of the authorities that vouch for callers."""
    require_client: bool = False
    """Refuse callers without such a certificate. gRPC core for Python knows nothing between
    this and not asking, so that it goes together with `client_ca`."""

    def __post_init__(self) -> None:
        """Refuse what would not be what it seems."""
        if self.require_client != (self.client_ca is not None):
            raise ValueError("client_ca and require_client go together")


def server_credentials(source: Callable[[], Credentials]) -> grpc.ServerCredentials:
    """Return gRPC's form of the credentials; `source` is asked now, and for each connection."""
    first = source()
    renewal: Any = Renewal(source, first)  # its None, for no change, is not in the stubs
    return grpc.dynamic_ssl_server_credentials(configuration(first), renewal, first.require_client)


def configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    """Return gRPC's form of the certificates."""
    pair = credentials.private_key, credentials.certificate_chain
    return grpc.ssl_server_certificate_configuration([pair], credentials.client_ca)


class Renewal:
    """Tells gRPC before a handshake whether the certificates are other ones. Any thread."""

    def __init__(self, source: Callable[[], Credentials], current: Credentials) -> None:
        self._source = source
        self._current = current
        self._lock = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        """Return new certificates; None keeps those that are in use."""
        try:
            credentials = self._source()
        except Exception:
            log.exception("new TLS credentials cannot be had; the old ones stay")
            return None
        with self._lock:
            if credentials == self._current:
                return None
            if credentials.require_client != self._current.require_client:
                log.error("whether callers need certificates cannot change; the old ones stay")
                return None
            self._current = credentials
        return configuration(credentials)
