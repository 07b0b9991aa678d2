"""Sources of an operator's keys: files, variables of the environment, outputs of commands."""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from inferd_seal.errors import KeyUnavailable, Unusable

KEY = 32
"""Bytes of a key."""
COMMAND_TIMEOUT_S = 60
KINDS = frozenset({"file", "env", "command"})
SOURCES = "file:PATH, env:NAME or command:WORDS was expected"


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
