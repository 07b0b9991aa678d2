"""The files of certificates: read for each handshake, used only if they can be."""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from inferd_server.errors import CredentialsError
from inferd_server.regular_file import read_regular
from inferd_server.security.validity import Validity, tell, validity_of
from inferd_server.settings.security import SecuritySettings
from inferd_server.transport.credentials import Credentials

log = logging.getLogger(__name__)


class CertificateFiles:
    """Returns the credentials in the files, or the last ones that could be used. Any thread."""

    def __init__(self, settings: SecuritySettings, wall: Callable[[], float] = time.time) -> None:
        """Read the files.

        Args:
            settings: name them.
            wall: seconds since the epoch.

        Raises:
            CredentialsError: names the file and what is wrong with it.
        """
        self._settings = settings
        self._wall = wall
        self._good = read_credentials(settings)
        self._validity = chain_validity(self._good)
        self._problem = ""

    def __call__(self) -> Credentials:
        """Read the files anew."""
        try:
            found = read_credentials(self._settings, known=self._good)
        except CredentialsError as error:
            self._tell(str(error))
        else:
            changed = found != self._good
            self._good, self._problem = found, ""
            if changed:
                self._validity = chain_validity(found)
                self.describe()
        return self._good

    def describe(self) -> None:
        """Write into the log which certificate is used, and whether it is any good."""
        if self._validity is not None:
            tell(self._validity, self._wall())

    def gauges(self) -> Mapping[str, float]:
        """Return what /metrics tells of the certificate in use."""
        if self._validity is None:
            return {}
        return {"inferd_tls_certificate_expiry_timestamp_seconds": self._validity.ends}

    def _tell(self, problem: str) -> None:
        # Once, and not at every handshake.
        if problem != self._problem:
            self._problem = problem
            log.error("changed certificates are not used; the old ones stay: %s", problem)


def read_credentials(settings: SecuritySettings, known: Credentials | None = None) -> Credentials:
    """Read and check the files.

    Args:
        settings: names them.
        known: these need no check.

    Raises:
        CredentialsError: names the file and what is wrong with it.
    """
    ca = settings.tls_client_ca
    found = Credentials(
        private_key=_read("tls_private_key", settings.tls_private_key),
        certificate_chain=_read("tls_certificate", settings.tls_certificate),
        client_ca=_read("tls_client_ca", ca) if ca else None,
        require_client=bool(ca),
    )
    if found != known:
        check(found)
    return found


def chain_validity(credentials: Credentials) -> Validity | None:
    """Return how long the server's own certificate is good for; None if it cannot be told."""
    with _as_file(credentials.certificate_chain) as path:
        return validity_of(path)


def check(credentials: Credentials) -> None:
    """See whether OpenSSL takes them; dates are the callers' to judge.

    Raises:
        CredentialsError: says which of them it does not.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with _as_file(credentials.certificate_chain) as chain, _as_file(credentials.private_key) as key:
        try:
            # Without an answer to the question for a password, which is asked of a terminal.
            context.load_cert_chain(chain, key, password=lambda: b"")
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(
                "tls_certificate and tls_private_key must be PEM, unencrypted, and belong "
                f"together, with the server's own certificate first ({error})"
            ) from error
    if credentials.client_ca is not None:
        try:
            context.load_verify_locations(cadata=credentials.client_ca.decode("ascii", "ignore"))
        except (ssl.SSLError, ValueError) as error:
            raise CredentialsError(
                f"tls_client_ca must be certificates of authorities, in PEM ({error})"
            ) from error


def _read(setting: str, path: str) -> bytes:
    try:
        return read_regular(Path(path))
    except OSError as error:
        raise CredentialsError(f"{setting}: {path} cannot be read: {error.strerror}") from error


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Give bytes a path, for a while: OpenSSL takes keys from files only."""
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
