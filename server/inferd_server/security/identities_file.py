"""The file of identities: how it is read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from inferd_server.errors import SettingsError
from inferd_server.security.identity import Identities, Identity
from inferd_server.security.permissions import covered
from inferd_server.settings.reading import read_mapping, validated

EMPTY = {hashlib.sha256(text).hexdigest() for text in (b"", b"\n", b"\r\n", b" ")}
"""What hashing an empty file or variable gives."""


def _of_a_token(digest: str) -> str:
    if digest.lower() in EMPTY:
        raise ValueError("is the hash of an empty text: the file with the token was empty")
    return digest


Sha256 = Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$"), AfterValidator(_of_a_token)]
Name = Annotated[str, Field(min_length=1)]
K = TypeVar("K")


class IdentityEntry(BaseModel):
    """One identity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    tokens_sha256: Sequence[Sha256] = ()
    """Of tokens, in hexadecimal; two while one replaces the other."""
    certificates: Sequence[Name] = ()
    """Subject alternative names, or common names of certificates that have none."""
    permissions: Sequence[Literal["infer", "read", "feedback", "admin"]]
    max_in_flight: Annotated[int, Field(ge=1)] | None = None
    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _recognisable(self) -> IdentityEntry:
        if not (self.tokens_sha256 or self.certificates):
            raise ValueError("tokens_sha256 or certificates must say how the caller is recognised")
        return self

    @property
    def identity(self) -> Identity:
        """The caller."""
        return Identity(
            self.name, covered(self.permissions), self.max_in_flight, self.requests_per_second
        )


class IdentitiesFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    identities: Sequence[IdentityEntry]


def read_identities(path: Path) -> Identities:
    """Read a file of identities.

    Raises:
        SettingsError: it cannot be read, is not such a file, or two of it are recognised alike.
    """
    # Somebody may have written a token in the place of its hash.
    content = validated(IdentitiesFile, read_mapping(path), str(path), secret=True)
    entries = content.identities
    _distinct(path, "name", [(entry.name, entry.name) for entry in entries])
    return Identities(
        _by(path, "token", entries, lambda e: [bytes.fromhex(h) for h in e.tokens_sha256]),
        _by(path, "certificate", entries, lambda e: e.certificates),
    )


def _by(
    path: Path,
    what: str,
    entries: Sequence[IdentityEntry],
    keys: Callable[[IdentityEntry], Sequence[K]],
) -> dict[K, Identity]:
    pairs = [(key, entry) for entry in entries for key in keys(entry)]
    _distinct(path, what, [(key, entry.name) for key, entry in pairs])
    identities = {entry.name: entry.identity for entry in entries}
    return {key: identities[entry.name] for key, entry in pairs}


def _distinct(path: Path, what: str, pairs: Sequence[tuple[object, str]]) -> None:
    seen: set[object] = set()
    for key, name in pairs:
        if key in seen:
            raise SettingsError(f"{path}: identity {name!r} has a {what} that stands there twice")
        seen.add(key)
