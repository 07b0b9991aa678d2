"""The settings of sealed and signed models."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from inferd_server.settings.section import Section


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
