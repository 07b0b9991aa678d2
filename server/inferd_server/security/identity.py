"""Callers that the operator named, and how one is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_server.errors import Unauthenticated
from inferd_server.security.permissions import Permission, grant_for

SCHEME = "bearer"
MANY = 3
"""Names of a certificate that a refusal repeats."""


@dataclass(frozen=True, slots=True)
class Identity:
    """One caller, or many that share a token or a certificate."""

    name: str
    """Empty for callers that are nobody in particular."""
    permissions: frozenset[Permission]
    max_in_flight: int | None = None
    """Requests that may await their answer; None is no limit."""
    requests_per_second: float | None = None
    """On average, with a second's worth at once; None is no limit."""


@dataclass(frozen=True, slots=True)
class Identities:
    """Every caller that the operator named."""

    by_token: Mapping[bytes, Identity] = field(default_factory=dict)
    """By the SHA-256 of a token."""
    by_certificate: Mapping[str, Identity] = field(default_factory=dict)
    """By a name in a certificate."""


def bearer_token(metadata: Sequence[tuple[str, str | bytes]]) -> str | None:
    """Return the token of a call, empty if it is; None if there is none."""
    for key, value in metadata:
        if key == "authorization" and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == SCHEME else None
    return None


def identify(
    known: Identities, anonymous: Identity, token: str | None, names: Sequence[str]
) -> Identity | Unauthenticated:
    """Return who calls: by the token if one was sent, else by the certificate; or the refusal.

    Args:
        known: every identity.
        anonymous: who calls without either.
        token: as it was sent.
        names: those in the caller's certificate, which an authority has vouched for.
    """
    if token is not None:
        return _by_token(known, token)
    return next((known.by_certificate[n] for n in names if n in known.by_certificate), anonymous)


def _by_token(known: Identities, token: str) -> Identity | Unauthenticated:
    if not token:
        return Unauthenticated(
            "the metadata 'authorization' holds no token after 'Bearer': a variable or a file of "
            "yours may be empty",
            reason="TOKEN_EMPTY",
        )
    # Found by its hash, in the same time whichever it is: what the time of a look-up could tell of
    # a hash helps nobody to a token.
    found = known.by_token.get(hashlib.sha256(token.encode(errors="replace")).digest())
    if found is None:
        return Unauthenticated("the token is not known here", reason="TOKEN_UNKNOWN")
    return found


def unknown_caller(names: Sequence[str], needed: Permission) -> Unauthenticated:
    """Return the sentence for a caller without an identity who may not do what it asks for."""
    if names:
        shown = ", ".join(repr(name) for name in names[:MANY])
        return Unauthenticated(
            f"the certificate ({shown}) is of no identity that this server knows",
            reason="CERTIFICATE_UNKNOWN",
        )
    return Unauthenticated(
        f"this needs an identity that may {grant_for(needed)}: send its token as metadata "
        "'authorization: Bearer TOKEN', or show its certificate",
        reason="CREDENTIALS_MISSING",
    )
