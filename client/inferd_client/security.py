"""How a client knows its server, and shows who it is: TLS and tokens."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import grpc

Metadata: TypeAlias = tuple[tuple[str, str], ...]

# Targets of gRPC that stand for addresses; any other may lead anywhere.
_TARGET = re.compile(r"(?:dns:(?:///)?|ipv[46]:(?:///)?)?(?P<addresses>[^/]+)")
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS, with everything in PEM.

    Attributes:
        ca: authorities that the client trusts; None for those that gRPC brings.
        certificate: shown to servers that ask for one, with its chain.
        private_key: of that certificate.
        server_name: expected in the server's certificate; empty for the host of the address.
    """

    ca: bytes | None = None
    certificate: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    def __post_init__(self) -> None:
        """Refuse half of what a client shows."""
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")

    @classmethod
    def from_files(
        cls, ca: str = "", certificate: str = "", private_key: str = "", server_name: str = ""
    ) -> Tls:
        """Read PEM files; empty names are left out.

        Raises:
            OSError: a file cannot be read.
            ValueError: a certificate without its key, or the other way round.
        """
        return cls(_content(ca), _content(certificate), _content(private_key), server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """Return gRPC's form of it."""
        return grpc.ssl_channel_credentials(self.ca, self.private_key, self.certificate)

    def options(self) -> list[tuple[str, str]]:
        """Return the channel arguments that go with it."""
        return [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []


# What gRPC's texts say of a connection that was not made, and what to do about it.
_CURES = (
    (
        "CERTIFICATE_VERIFY_FAILED",
        "the authority that signed the server's certificate is not trusted: pass it as Tls(ca=...) "
        "(--tls-ca FILE)",
    ),
    (
        r"Hostname Verification|not in peer certificate",
        "the server's certificate is for another name: pass that as Tls(server_name=...) "
        "(--tls-server-name NAME)",
    ),
    ("WRONG_VERSION_NUMBER", "the server speaks no TLS: leave tls out (--tls and --tls-... flags)"),
    (
        "create security handshaker",
        "ca, certificate or private_key of Tls (--tls-ca, --tls-certificate, --tls-private-key) "
        "is no valid PEM, or the key is not the certificate's",
    ),
    (
        r"Socket closed|[Cc]onnection reset|Endpoint closing",
        "the server closed the connection: if it speaks TLS, pass tls=Tls() (--tls); if it asks "
        "for one of yours, Tls(certificate=..., private_key=...) (--tls-certificate, "
        "--tls-private-key)",
    ),
)


def cure(text: str) -> str:
    """Return what to pass when gRPC says that about a connection; empty where TLS is no cause."""
    found = (says for pattern, says in _CURES if re.search(pattern, text))
    says = next(found, "")
    return f"; {says}" if says else ""


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def authorization(
    token: str | None, address: str, tls: Tls | None, *, in_the_clear: bool = False
) -> Metadata:
    """Return the metadata that carries a token.

    Args:
        token: None for none.
        address: where it would be sent.
        tls: None for plaintext.
        in_the_clear: send it over plaintext, wherever that goes.

    Raises:
        ValueError: it cannot be sent, or others could read it on its way.
    """
    if token is None:
        return ()
    if not _PRINTABLE.fullmatch(token):
        raise ValueError("a token is printable ASCII without spaces")
    if tls is None and not in_the_clear and not is_local(address):
        raise ValueError(
            f"the token would travel to {address} in the clear: use TLS, or say that it may "
            "(token_in_the_clear)"
        )
    return (("authorization", f"Bearer {token}"),)


def is_local(address: str) -> bool:
    """Tell whether a target of gRPC surely stays on this host."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    match = _TARGET.fullmatch(address)
    return match is not None and all(map(_is_loopback, match["addresses"].split(",")))


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
