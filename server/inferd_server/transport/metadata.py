"""The check of metadata that is to be sent."""

from __future__ import annotations

import re

from inferd_server.transport.call import Metadata

KEY = re.compile(r"[0-9a-z_.-]+")
# Printable ASCII; anything else needs a key that ends in "-bin".
TEXT = re.compile(r"[ -~]*")
RESERVED = "grpc-"
# Clients refuse headers above 8 KiB, and what gRPC itself and errors send comes on top.
MAX_BYTES = 4096
# What HTTP/2 counts for each pair besides its bytes (RFC 9113, 6.5.2).
PAIR_BYTES = 32


def checked(metadata: Metadata) -> Metadata:
    """Return metadata as it came.

    Raises:
        ValueError: gRPC or a client would refuse it, and the call would fail in some other way.
    """
    for key, value in metadata:
        if not KEY.fullmatch(key) or key.startswith(RESERVED):
            raise ValueError(f"{key!r} cannot be a metadata key")
        if key.endswith("-bin") != isinstance(value, bytes):
            raise ValueError(f"metadata {key!r}: bytes need a key that ends in -bin, text must not")
        if isinstance(value, str) and not TEXT.fullmatch(value):
            raise ValueError(f"metadata {key!r}: text must be printable ASCII")
    size = sum(len(key) + len(value) + PAIR_BYTES for key, value in metadata)
    if size > MAX_BYTES:
        raise ValueError(f"metadata of {size} bytes; callers take {MAX_BYTES}")
    return metadata
