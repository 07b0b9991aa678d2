"""The settings of TLS, of callers and what they may do, and of whom models must be from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, field_validator

from inferd_server.settings.section import Section

AUTO: Final = "auto"


class SecuritySettings(Section):
    """TLS, and who may do what."""

    tls_certificate: str = Field(
        "", description="PEM file of the server's certificate and its chain; empty: no TLS"
    )
    tls_private_key: str = Field("", description="PEM file of its private key, unencrypted")
    tls_client_ca: str = Field(
        "", description="PEM file of authorities; callers need a certificate of one of them"
    )
    identities_file: str = Field(
        "",
        description="YAML file of callers, by token or certificate, and what each may do "
        "(docs/security.md)",
    )
    anonymous_permissions: tuple[Literal["auto", "infer", "read", "feedback", "admin"], ...] = (
        Field(
            (AUTO,),
            description="what callers without an identity may do: infer, read, feedback, admin, "
            "with commas between; auto: nothing where there is an identities_file, else infer and "
            "read, and all on a loopback host",
        )
    )
    probe_port: Annotated[int, Field(ge=-1, le=65535)] = Field(
        -1, description="port of a plaintext health service and nothing else; -1: none"
    )

    @field_validator("anonymous_permissions")
    @classmethod
    def _alone(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if AUTO in value and len(value) > 1:
            raise ValueError("auto stands alone")
        return value

    @property
    def says_who(self) -> bool:
        """True if the operator said what callers may do, all or some of them."""
        return bool(self.identities_file) or self.anonymous_permissions != (AUTO,)

    @property
    def tls(self) -> bool:
        """True if callers speak TLS."""
        return bool(self.tls_certificate)


class SealSettings(Section):
    """Sealed and signed models (docs/sealing.md)."""

    model_keys: tuple[str, ...] = Field(
        (),
        description="where the keys of sealed models are, with commas between: file:PATH, "
        "env:NAME, or command:WORDS, whose output is the key",
    )
    model_signers: tuple[Path, ...] = Field(
        (), description="PEM files of the public keys of those who may sign models"
    )
    require_models: Literal["any", "signed", "sealed"] = Field(
        "any",
        description="signed: models without a signature of a model_signer are refused; sealed: "
        "those that are not encrypted, too",
    )
