"""Messages of gRPC in the DATA of one stream: a flag, four bytes of length, the message."""

from __future__ import annotations

from inferd_client.bench.fast.frames import ProtocolError

PREFIX_BYTES = 5


def prefixed(message: bytes) -> bytes:
    """Return a message as it travels, uncompressed."""
    return b"\0" + len(message).to_bytes(4) + message


class MessageReader:
    """Puts the messages of one stream together."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def empty(self) -> bool:
        """True between two messages."""
        return not self._rest

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now.

        Raises:
            ProtocolError: a message is compressed, and nobody asked for it.
        """
        # Nearly always a frame is a message.
        if not self._rest and len(data) - PREFIX_BYTES == int.from_bytes(data[1:5]) and not data[0]:
            return [data[PREFIX_BYTES:]]
        self._rest += data
        return self._complete()

    def clear(self) -> None:
        """Forget a message that will not be finished."""
        self._rest.clear()

    def _complete(self) -> list[bytes]:
        rest, at, found = self._rest, 0, []
        while len(rest) - at >= PREFIX_BYTES:
            if rest[at]:
                raise ProtocolError("a message is compressed")
            after = at + PREFIX_BYTES + int.from_bytes(rest[at + 1 : at + PREFIX_BYTES])
            if after > len(rest):
                break
            found.append(bytes(rest[at + PREFIX_BYTES : after]))
            at = after
        del rest[:at]
        return found
