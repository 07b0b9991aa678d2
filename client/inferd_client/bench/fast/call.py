"""A call on a stream of a connection, and the codes that its end may have."""

from __future__ import annotations

from typing import Protocol

from inferd_client.bench.fast.frames import ErrorCode

UNAVAILABLE = "UNAVAILABLE"

# The code of a stream that was reset ("HTTP2 Transport Mapping", errors); INTERNAL for others.
_RESET_CODES: dict[int, str] = {
    ErrorCode.REFUSED_STREAM: UNAVAILABLE,
    ErrorCode.CANCEL: "CANCELLED",
    ErrorCode.ENHANCE_YOUR_CALM: "RESOURCE_EXHAUSTED",
    ErrorCode.INADEQUATE_SECURITY: "PERMISSION_DENIED",
}


class Call(Protocol):
    """What a stream belongs to."""

    def data(self, data: bytes) -> None:
        """Take what arrived."""

    def ended(self, code: str) -> None:
        """The call is over, with a code of gRPC."""

    def unprocessed(self) -> None:
        """The server is going away and promises that it did nothing with the call."""


def code_of_reset(error: int) -> str:
    """Return the gRPC code of a stream that was reset with an error code of HTTP/2."""
    return _RESET_CODES.get(error, "INTERNAL")
