"""From the settings to what stands before the handlers, and what is wrong with the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from inferd_server.address import is_loopback
from inferd_server.errors import SettingsError, StartupError
from inferd_server.security.access import Access, Fixed, Refused
from inferd_server.security.certificates import CertificateFiles
from inferd_server.security.guard import Guard
from inferd_server.security.identities_file import read_identities
from inferd_server.security.identity import Identity
from inferd_server.security.limits import CallerLimits
from inferd_server.security.permissions import Permission, anonymous_grants, covered
from inferd_server.security.watched import LOOK_S, WatchedFile
from inferd_server.settings.model import Settings

log = logging.getLogger(__name__)


def open_access(settings: Settings, clock: Callable[[], float], refused: Refused) -> Access:
    """Return what decides on calls.

    Args:
        settings: checked.
        clock: monotonic seconds.
        refused: told of every call that is refused.

    Raises:
        SettingsError: the identities file cannot be used.
    """
    security, loopback = settings.security, is_loopback(settings.listen.host)
    named = bool(security.identities_file)
    permissions = covered(anonymous_grants(security.anonymous_permissions, named, loopback))
    if not named:
        # Where nothing is said of callers, model_control alone decides on loading.
        allowed = permissions if security.says_who else permissions | {Permission.CONTROL}
        return Fixed(allowed, refused)
    identities = WatchedFile(Path(security.identities_file), read_identities, clock)
    return Guard(identities, Identity("", permissions), CallerLimits(clock), refused)


def credentials_of(settings: Settings) -> CertificateFiles | None:
    """Return what a transport asks for its certificates; None without TLS.

    Raises:
        CredentialsError: the files cannot be used.
    """
    return CertificateFiles(settings.security) if settings.security.tls else None


def await_files(settings: Settings, pause: Callable[[float], object]) -> None:
    """Wait until the files can be used, for a process that starts anew beside others that serve.

    They were good when the server started: it must not end for one that is just being replaced.

    Args:
        settings: name the files.
        pause: waits for some seconds.
    """
    told = ""
    while problem := _problem(settings):
        if problem != told:
            log.error("waiting for files that can be used", extra={"error": problem})
            told = problem
        pause(LOOK_S)


def tell_who_may(settings: Settings) -> None:
    """Say what everybody may do who reaches an address that is not this host's alone."""
    if is_loopback(settings.listen.host):
        return
    grants = anonymous_grants(settings.security.anonymous_permissions, False, False)
    if grants:
        log.warning(
            "everybody who reaches this address may call: identities_file would tell callers apart",
            extra={"host": settings.listen.host, "permissions": ", ".join(grants)},
        )


def _problem(settings: Settings) -> str:
    path = settings.security.identities_file
    try:
        credentials_of(settings)
        if path:
            read_identities(Path(path))
    except StartupError as error:
        return str(error)
    return ""


def check_security(settings: Settings) -> None:
    """See whether a server can start like this, and say what is open that need not be.

    Raises:
        StartupError: says which setting or file is wrong, and how.
    """
    security = settings.security
    if bool(security.tls_certificate) != bool(security.tls_private_key):
        raise SettingsError("tls_certificate and tls_private_key go together: one is missing")
    if security.tls_client_ca and not security.tls:
        raise SettingsError(
            "tls_client_ca asks callers for certificates, which needs TLS: set "
            "tls_certificate and tls_private_key, too"
        )
    certificates = credentials_of(settings)
    if certificates is not None:
        certificates.describe()
    if not security.identities_file:
        tell_who_may(settings)
        return
    try:
        known = read_identities(Path(security.identities_file))
    except SettingsError as error:
        raise SettingsError(f"identities_file: {error}") from error
    if known.by_certificate and not security.tls_client_ca:
        log.warning("identities by certificate are never met: tls_client_ca is not set")
    if known.by_token and not (security.tls or is_loopback(settings.listen.host)):
        log.warning("tokens travel in the clear: there is no TLS on an address that others reach")
