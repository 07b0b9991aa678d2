"""Decodes Secrets, which helm sends as protobuf.

The bytes are b"k8s\\0" and a `runtime.Unknown` whose field 2 holds a `core.v1.Secret` (field
numbers from Kubernetes' generated.proto files).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

MAGIC = b"k8s\0"
NAMES = {1: "name", 3: "namespace", 5: "uid", 6: "resourceVersion"}
MAPS = {11: "labels", 12: "annotations"}


def decode_secret(raw: bytes) -> dict[str, Any]:
    """Return the Secret as its JSON form has it."""
    secret: dict[str, Any] = {"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {}}
    for number, value in fields(dict(fields(raw[len(MAGIC) :]))[2]):
        if number == 1:
            secret["metadata"] = decode_metadata(value)
        elif number == 2:
            key, content = entry(value)
            secret["data"][key] = base64.b64encode(content).decode()
        elif number == 3:
            secret["type"] = value.decode()
    return secret


def decode_metadata(raw: bytes) -> dict[str, Any]:
    """Return the part of the metadata that helm sets."""
    metadata: dict[str, Any] = {}
    for number, value in fields(raw):
        if number in NAMES and value:
            metadata[NAMES[number]] = value.decode()
        elif number in MAPS:
            key, content = entry(value)
            metadata.setdefault(MAPS[number], {})[key] = content.decode()
    return metadata


def entry(raw: bytes) -> tuple[str, bytes]:
    """Return one entry of a map."""
    parts = dict(fields(raw))
    return parts[1].decode(), parts.get(2, b"")


def fields(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of every length-delimited field; numbers are passed over."""
    at = 0
    while at < len(raw):
        tag, at = varint(raw, at)
        value, at = varint(raw, at)
        if tag & 7 == 2:
            yield tag >> 3, raw[at : at + value]
            at += value
        elif tag & 7 != 0:
            raise ValueError(f"wire type {tag & 7} is not expected")


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    value = shift = 0
    while True:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
