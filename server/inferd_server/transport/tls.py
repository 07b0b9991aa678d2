"""Certificates, as gRPC takes them, renewed without a restart."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import grpc

from inferd_server.transport.credentials import Credentials

log = logging.getLogger(__name__)


def server_credentials(source: Callable[[], Credentials]) -> grpc.ServerCredentials:
    """Return gRPC's form of the credentials; `source` is asked now, and for each connection."""
    first = source()
    renewal: Any = Renewal(source, first)  # its None, for no change, is not in the stubs
    return grpc.dynamic_ssl_server_credentials(configuration(first), renewal, first.require_client)


def configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
    """Return gRPC's form of the certificates."""
    pair = credentials.private_key, credentials.certificate_chain
    return grpc.ssl_server_certificate_configuration([pair], credentials.client_ca)


def text_names(identities: Iterable[bytes] | None) -> tuple[str, ...]:
    """Return the names in a caller's certificate, as gRPC hands them over, as text."""
    return tuple(name.decode(errors="replace") for name in identities or ())


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
