"""The subject of a certificate, and how long it is good for."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

log = logging.getLogger(__name__)
SOON_S = 7 * 86_400.0
"""Seconds before the end of a certificate from which on the log warns of it."""


@dataclass(frozen=True, slots=True)
class Validity:
    """What a certificate says of itself."""

    subject: str
    begins: float
    """Seconds since the epoch."""
    ends: float


def validity_of(path: str) -> Validity | None:
    """Read the first certificate of a PEM file; None if it cannot be told.

    By what the interpreter's own tests read certificates with: ssl has no public way to look into
    one without a connection.
    """
    decode = getattr(getattr(ssl, "_ssl", None), "_test_decode_cert", None)
    if decode is None:
        return None
    try:
        found = decode(path)
        times = [ssl.cert_time_to_seconds(found[name]) for name in ("notBefore", "notAfter")]
    except (ssl.SSLError, OSError, ValueError, KeyError):
        return None
    parts = [f"{name}={value}" for entry in found.get("subject", ()) for name, value in entry]
    return Validity(", ".join(parts), *map(float, times))


def tell(validity: Validity, now: float) -> None:
    """Write into the log which certificate is used; `now` is seconds since the epoch."""
    ends = datetime.fromtimestamp(validity.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    what = {"subject": validity.subject, "ends": ends}
    if now >= validity.ends:
        log.warning("the TLS certificate has expired: callers refuse it", extra=what)
    elif now < validity.begins:
        log.warning("the TLS certificate is not valid yet: callers refuse it", extra=what)
    elif now >= validity.ends - SOON_S:
        log.warning("the TLS certificate expires soon", extra=what)
    else:
        log.info("this TLS certificate is used", extra=what)
