"""Decompresses requests, within bounds that gRPC core does not have.

Core is told to leave messages as they came ("grpc.per_message_decompression"), and tells nobody
which of them are compressed. So they are recognised by how they begin: 0x1f, the first byte of
gzip, begins no protobuf message; 0x78, that of deflate, only one that begins with an unknown
field 15, and such a message is no deflate stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from inferd_server.errors import InvalidInput, ResourceExhausted, Unimplemented

# Source: RFC 1952, 2.3.1 (gzip); RFC 1950, 2.2 (zlib, a window of 32 KiB and four levels).
GZIP = b"\x1f\x8b"
DEFLATE = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
WINDOW_BITS: Mapping[bytes, int] = {GZIP: 31, **dict.fromkeys(DEFLATE, 15)}
FIRST_BYTES = frozenset(magic[0] for magic in WINDOW_BITS)
"""Nearly all messages begin with another one."""
ANY_RATIO_BYTES = 1 << 20
"""A message up to this size may come from as few bytes as it likes."""


class Compression:
    """What a transport makes of compressed requests."""

    __slots__ = ("_accepted", "_max_bytes", "_max_ratio")

    def __init__(self, accepted: bool, max_bytes: int, max_ratio: int) -> None:
        """Keep the bounds.

        Args:
            accepted: False refuses all compressed messages.
            max_bytes: of a message, decompressed.
            max_ratio: of decompressed to received bytes; 0 is no limit.
        """
        self._accepted = accepted
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio

    def plain(self, message: bytes) -> bytes:
        """Return a message as its caller wrote it; the same object if it was not compressed.

        Raises:
            Unimplemented: compressed messages are refused.
            InvalidInput: it is damaged, or grows beyond the ratio.
            ResourceExhausted: it is larger than a message may be.
        """
        if message[:2] not in WINDOW_BITS:
            return message
        limit = self._limit(len(message))
        stream = zlib.decompressobj(WINDOW_BITS[message[:2]])
        try:
            found = stream.decompress(message, limit + 1 if self._accepted else 1)
        except zlib.error as error:
            if message.startswith(GZIP):
                raise _damaged(str(error)) from error
            # No deflate stream, and so no compressed message.
            return message
        if not self._accepted:
            raise Unimplemented(
                "this server takes no compressed requests (accept_compressed); send it as it is",
                reason="COMPRESSION_NOT_TAKEN",
            )
        if len(found) > limit:
            raise self._refusal(len(message), limit)
        if not stream.eof or stream.unused_data:
            raise _damaged("it ends too early or too late")
        return found

    def _limit(self, size: int) -> int:
        if not self._max_ratio:
            return self._max_bytes
        return min(self._max_bytes, max(ANY_RATIO_BYTES, size * self._max_ratio))

    def _refusal(self, size: int, limit: int) -> InvalidInput | ResourceExhausted:
        if limit == self._max_bytes:
            return ResourceExhausted(
                f"the message has more than {limit} bytes once decompressed (max_message_bytes)",
                reason="MESSAGE_BYTES",
            )
        return InvalidInput(
            f"the message of {size} bytes becomes more than {limit} once decompressed, which is "
            f"more than {self._max_ratio} times as many (max_compression_ratio); send it as it is",
            reason="COMPRESSION_RATIO",
        )


def _damaged(why: str) -> InvalidInput:
    text = f"the compressed message is damaged: {why}"
    return InvalidInput(text, reason="COMPRESSION_DAMAGED")
