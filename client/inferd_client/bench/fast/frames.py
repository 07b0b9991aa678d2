"""HTTP/2 frames as bytes (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES = 9
MAX_WINDOW = 2**31 - 1
MAX_STREAM = 2**31 - 1
DEFAULT_WINDOW = 65_535
# What every peer may send and must take, what we take, and the largest that there is.
DEFAULT_FRAME_BYTES = 16_384
OUR_FRAME_BYTES = 4 * 2**20
LARGEST_FRAME_BYTES = 2**24 - 1

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = 0, 1, 2, 3, 4
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 5, 6, 7, 8, 9

END_STREAM = ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
WITH_PRIORITY = 0x20

_HEADER = struct.Struct(">HBBBI")
_SETTING = struct.Struct(">HI")


class Setting(IntEnum):
    """Names of settings."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    FLOW_CONTROL_ERROR = 3
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12


class ProtocolError(Exception):
    """The peer broke the protocol: the connection is of no more use."""

    def __init__(self, text: str, code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(text)
        self.code = code


def start(length: int, kind: int, flags: int) -> bytes:
    """Return the header of a frame up to the number of its stream."""
    return struct.pack(">HBBB", length >> 8, length & 0xFF, kind, flags)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return start(len(payload), kind, flags) + stream.to_bytes(4) + payload


def settings(values: Mapping[Setting, int]) -> bytes:
    """Return a SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def settings_of(payload: bytes) -> Iterator[tuple[int, int]]:
    """Yield the pairs of a SETTINGS frame.

    Raises:
        ProtocolError: it is cut off.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError("settings cut off", ErrorCode.FRAME_SIZE_ERROR)
    yield from _SETTING.iter_unpack(payload)


def number(payload: bytes, size: int = 4) -> int:
    """Return the integer that a frame of so many bytes or more starts with.

    Raises:
        ProtocolError: it is shorter.
    """
    if len(payload) < size:
        raise ProtocolError("a frame is too short", ErrorCode.FRAME_SIZE_ERROR)
    return int.from_bytes(payload[:4])


def content(kind: int, flags: int, payload: bytes) -> bytes:
    """Return what DATA or HEADERS carry, without padding and priority.

    Raises:
        ProtocolError: there is more padding than frame.
    """
    first, last = 0, len(payload)
    if flags & PADDED:
        number(payload, 1)
        first, last = 1, last - payload[0]
    if kind == HEADERS and flags & WITH_PRIORITY:
        first += 5
    if first > last:
        raise ProtocolError("more padding than frame")
    return payload[first:last]


class FrameReader:
    """Cuts what a socket gives into frames, and lets DATA through as it comes."""

    def __init__(self, largest: int = OUR_FRAME_BYTES) -> None:
        self._largest = largest
        self._rest = b""
        # Of a DATA frame that is under way: bytes to come, flags, stream.
        self._left, self._flags, self._stream = 0, 0, 0

    def frames(self, data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (kind, flags, stream, payload) of every frame that is complete.

        DATA without padding may come in parts, of which only the last one has the flags.

        Raises:
            ProtocolError: a frame is larger than we allow.
        """
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        if self._left:
            at = min(end, self._left)
            yield self._part(data[:at])
        while end - at >= HEADER_BYTES:
            high, low, kind, flags, stream = _HEADER.unpack_from(data, at)
            length = high << 8 | low
            if length > self._largest:
                raise ProtocolError("a frame is too large", ErrorCode.FRAME_SIZE_ERROR)
            after = at + HEADER_BYTES + length
            if after > end:
                if kind == DATA and not flags & PADDED:
                    self._left, self._flags, self._stream = length, flags, stream & MAX_STREAM
                    yield self._part(data[at + HEADER_BYTES :])
                    at = end
                break
            yield kind, flags, stream & MAX_STREAM, data[at + HEADER_BYTES : after]
            at = after
        self._rest = data[at:]

    def _part(self, part: bytes) -> tuple[int, int, int, bytes]:
        self._left -= len(part)
        return DATA, 0 if self._left else self._flags, self._stream, part
