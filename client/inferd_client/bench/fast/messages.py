"""Messages of gRPC in the DATA of one stream: a flag, four bytes of length, the message."""

from __future__ import annotations

from collections.abc import Callable

from inferd_client.bench.fast.frames import ProtocolError

PREFIX_BYTES = 5


def prefixed(message: bytes) -> bytes:
    """Return a message as it travels, uncompressed."""
    return b"\0" + len(message).to_bytes(4) + message


def everything(_: bytes) -> bool:
    """Want every message whole."""
    return True


def nothing(_: bytes) -> bool:
    """Want no message."""
    return False


class MessageReader:
    """Puts the messages of one stream together."""

    __slots__ = ("_left", "_parts", "_prefix", "_wanted")

    def __init__(self, wanted: Callable[[bytes], bool] = everything) -> None:
        """Prepare; `wanted` decides by a message's first bytes.

        Of a message that comes in parts and is not wanted no more than the first is kept.
        """
        self._wanted = wanted
        self._prefix = b""
        self._parts: list[bytes] = []
        # Bytes to come of a message; 0 between two of them.
        self._left = 0

    @property
    def empty(self) -> bool:
        """True between two messages."""
        return not (self._left or self._prefix)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now.

        Raises:
            ProtocolError: a message is compressed, and nobody asked for it.
        """
        # Nearly always a frame is a message.
        whole = len(data) - PREFIX_BYTES == int.from_bytes(data[1:PREFIX_BYTES])
        if whole and not data[0] and not self._left and not self._prefix:
            return [data[PREFIX_BYTES:]]
        return self._cut(data)

    def clear(self) -> None:
        """Forget a message that will not be finished."""
        self._prefix, self._left = b"", 0
        self._parts.clear()

    def _cut(self, data: bytes) -> list[bytes]:
        found: list[bytes] = []
        if self._left:
            data = self._take(data, found)
        data = self._prefix + data
        while len(data) >= PREFIX_BYTES:
            if data[0]:
                raise ProtocolError("a message is compressed")
            self._left = int.from_bytes(data[1:PREFIX_BYTES])
            data = self._take(data[PREFIX_BYTES:], found)
        self._prefix = data
        return found

    def _take(self, data: bytes, found: list[bytes]) -> bytes:
        """Add to the message that is under way, and return what is not its own."""
        part, rest = data[: self._left], data[self._left :]
        if part and (not self._parts or self._wanted(self._parts[0])):
            self._parts.append(part)
        self._left -= len(part)
        if not self._left:
            found.append(b"".join(self._parts))
            self._parts.clear()
        return rest
