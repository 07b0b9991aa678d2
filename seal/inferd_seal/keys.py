"""Keys that encrypt keys: where they are, and how the data key of a model is wrapped in one.

A model's files are sealed with a random data key. That key is kept beside them, encrypted with a
key of the operator's, so that the latter can be replaced without touching the files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inferd_seal.errors import KeyUnavailable, Tampered, Unusable, WrongKey
from inferd_seal.stream import KEY

NONCE = 12
COMMAND_TIMEOUT_S = 60
KINDS = frozenset({"file", "env", "command"})
SOURCES = "file:PATH, env:NAME or command:WORDS was expected"


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key, encrypted."""

    key: str
    """Identifies the key that it is encrypted with."""
    nonce: bytes
    data: bytes


def parse_source(source: str) -> tuple[str, str]:
    """Return the kind and the place of a key; what names no kind is the path of a file.

    Raises:
        Unusable: it names no place.
    """
    kind, _, rest = source.partition(":")
    if kind not in KINDS:
        kind, rest = "file", source
    if not rest.strip():
        raise Unusable(f"{source!r} does not say where a key is: {SOURCES}")
    return kind, rest


def read_key(source: str, environment: Mapping[str, str] = os.environ) -> bytes:
    """Return a key of 32 bytes.

    Args:
        source: file:PATH, env:NAME, or command:WORDS, whose output is the key (not by a shell).
        environment: of the process.

    Raises:
        KeyUnavailable: it cannot be had, or what is there is no key.
        Unusable: the source is none.
    """
    kind, place = parse_source(source)
    if kind == "file":
        return decode_key(_file(Path(place)), source)
    if kind == "env":
        if not environment.get(place):
            raise KeyUnavailable(f"the variable {place} has no key")
        return decode_key(environment[place].encode(), source)
    return decode_key(_output(place), source)


def decode_key(content: bytes, source: str) -> bytes:
    """Return the key that 32 bytes, 64 hexadecimal digits or base64 stand for.

    Raises:
        KeyUnavailable: it is none of these.
    """
    if len(content) == KEY:
        return content
    text = content.strip()
    for decode in (binascii.unhexlify, lambda told: base64.b64decode(told, validate=True)):
        try:
            key = decode(text)
        except (binascii.Error, ValueError):
            continue
        if len(key) == KEY:
            return key
    raise KeyUnavailable(
        f"{source} gives no key: 32 bytes were expected, or as text 64 hexadecimal digits or base64"
    )


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


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyUnavailable(f"the key {path} cannot be read: {error.strerror}") from error


def _output(line: str) -> bytes:
    try:
        words = shlex.split(line)
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise KeyUnavailable(f"the command of the key cannot be run: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        why = f": {said[0]}" if said else ""
        raise KeyUnavailable(f"the command of the key ended with {done.returncode}{why}")
    return done.stdout
