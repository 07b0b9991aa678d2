"""Certificates of the tests of this folder, in files and on channels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import trustme

YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate with its chain and its key, PEM."""

    chain: bytes
    key: bytes


def _pair(leaf: trustme.LeafCert) -> Pair:
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    return Pair(chain, leaf.private_key_pem.bytes())


def issued(authority: trustme.CA, *names: str, common_name: str | None = None) -> Pair:
    return _pair(authority.issue_cert(*names, common_name=common_name))


def expired(authority: trustme.CA, *names: str) -> Pair:
    """One that was valid until yesterday."""
    now = datetime.now(UTC)
    certificate = authority.issue_cert(
        *names, not_before=now - YEAR, not_after=now - timedelta(days=1)
    )
    return _pair(certificate)


def root(authority: trustme.CA) -> bytes:
    return authority.cert_pem.bytes()


def trusting(authority: trustme.CA, caller: Pair | None = None) -> grpc.ChannelCredentials:
    """Credentials of a caller that trusts an authority and shows a certificate, if it has one."""
    if caller is None:
        return grpc.ssl_channel_credentials(root(authority))
    return grpc.ssl_channel_credentials(root(authority), caller.key, caller.chain)


class Files:
    """The files that a server is told of."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self.certificate, self.key = folder / "tls.crt", folder / "tls.key"
        self.client_ca = folder / "ca.crt"
        self.put(issued(authority, "127.0.0.1"))
        self.client_ca.write_bytes(root(authority))

    def put(self, pair: Pair) -> None:
        """Write the server's certificate and key."""
        self.certificate.write_bytes(pair.chain)
        self.key.write_bytes(pair.key)

    def settings(self, *, mutual: bool = False) -> dict[str, str]:
        """The settings that name them."""
        own = {"tls_certificate": str(self.certificate), "tls_private_key": str(self.key)}
        return {**own, **({"tls_client_ca": str(self.client_ca)} if mutual else {})}
