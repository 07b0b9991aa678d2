"""What a server shows of itself over TLS; apart from `tls`, so that it is had without gRPC."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server shows its callers, and what it asks of them; PEM."""

    private_key: bytes = field(repr=False)
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
