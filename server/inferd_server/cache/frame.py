"""The frame of an answer that is kept outside this process: a version and a checksum."""

from __future__ import annotations

import hashlib

from inferd_server.cache.key import Key

MAGIC = b"inferd\x00\x01"
"""The last byte is the version of what follows."""
CHECKSUM = 16


def pack(key: Key, value: bytes) -> bytes:
    """Return an answer with what tells later that it is whole, and the answer to this key."""
    return MAGIC + _checksum(key, value) + value


def unpack(key: Key, data: bytes) -> bytes | None:
    """Return the answer; None if it is damaged, of another version, or another request's."""
    head = len(MAGIC) + CHECKSUM
    value = data[head:]
    if data[:head] != MAGIC + _checksum(key, value):
        return None
    return value


def _checksum(key: Key, value: bytes) -> bytes:
    found = hashlib.sha256(key)
    found.update(value)
    return found.digest()[:CHECKSUM]
