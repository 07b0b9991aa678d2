"""Keys that encrypt keys: how the data key of a model is wrapped in one.

A model's files are sealed with a random data key. That key is kept beside them, encrypted with a
key of the operator's, so that the latter can be replaced without touching the files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inferd_seal.errors import KeyUnavailable, Tampered, WrongKey
from inferd_seal.key_sources import read_key

NONCE = 12


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, encrypted."""

    key: str
    """Identifies the key that it is encrypted with."""
    nonce: bytes
    data: bytes


def key_id(key: bytes) -> str:
    """Return what tells one key from another, and nothing of it."""
    return hashlib.sha256(b"inferd key id\n" + key).hexdigest()[:16]


def wrap(data_key: bytes, key: bytes, bound: bytes) -> WrappedKey:
    """Encrypt a data key; `bound` is what it opens for, and for nothing else."""
    nonce = secrets.token_bytes(NONCE)
    return WrappedKey(key_id(key), nonce, AESGCM(key).encrypt(nonce, data_key, bound))


def unwrap(wrapped: Sequence[WrappedKey], sources: Sequence[str], bound: bytes) -> bytes:
    """Return the data key of a model.

    Args:
        wrapped: it, with one key or several.
        sources: where keys are; those that cannot be had matter only if no other one fits.
        bound: what it was wrapped for.

    Raises:
        WrongKey: it is wrapped with another key.
        KeyUnavailable: no key is given, or none that can be had.
        Tampered: the wrapped key was changed.
    """
    if not sources:
        raise KeyUnavailable("it is sealed, and nothing says where its key is")
    given, missing = [], []
    for source in sources:
        try:
            key = read_key(source)
        except KeyUnavailable as error:
            missing.append(error)
            continue
        given.append(key_id(key))
        for one in wrapped:
            if one.key == given[-1]:
                return _unwrapped(one, key, bound)
    if missing:
        raise missing[0]
    wanted = " or ".join(one.key for one in wrapped)
    raise WrongKey(f"it is sealed with the key {wanted}, and given is {', '.join(given)}")


def _unwrapped(wrapped: WrappedKey, key: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(wrapped.nonce, wrapped.data, bound)
    except (InvalidTag, ValueError) as error:
        raise Tampered(
            "its wrapped key was changed, or its seal, or they are of two models"
        ) from error


def encode_wrapped(wrapped: Sequence[WrappedKey]) -> bytes:
    """Return wrapped keys as the file that lies beside a sealed model."""
    told = [
        {
            "key": one.key,
            "nonce": base64.b64encode(one.nonce).decode(),
            "data": base64.b64encode(one.data).decode(),
        }
        for one in wrapped
    ]
    return json.dumps({"wrapped": told}, indent=2).encode() + b"\n"


def decode_wrapped(content: bytes) -> tuple[WrappedKey, ...]:
    """Read wrapped keys.

    Raises:
        Tampered: these are none.
    """
    try:
        return tuple(
            WrappedKey(
                str(one["key"]), base64.b64decode(one["nonce"]), base64.b64decode(one["data"])
            )
            for one in json.loads(content)["wrapped"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered("the file of its wrapped keys was changed") from error
