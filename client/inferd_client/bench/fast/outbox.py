"""What a connection has to send, as far as the server's windows allow (RFC 9113, section 5.2)."""

from __future__ import annotations

from collections import deque

from inferd_client.bench.fast import frames
from inferd_client.bench.fast.frames import (
    DATA,
    DEFAULT_FRAME_BYTES,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_WINDOW,
    ErrorCode,
    ProtocolError,
)
from inferd_client.bench.fast.messages import prefixed

# Up to here it costs less to copy a body than to hand it to the socket as a part of its own.
_COPIED_BYTES = 4096


class Baked:
    """The frames of a unary request, but for the number of their stream."""

    __slots__ = ("body", "head", "middle", "size")

    def __init__(self, block: bytes, message: bytes) -> None:
        self.body = prefixed(message)
        self.size = len(self.body)
        self.head = frames.start(len(block), HEADERS, END_HEADERS)
        # Where the body goes in one frame.
        self.middle = block + frames.start(self.size & 0xFFFFFF, DATA, END_STREAM)

    def block(self) -> bytes:
        """Return the header block alone."""
        return self.middle[:-5]


class Outgoing:
    """One stream with more to send: the server's window, and what waits for it."""

    __slots__ = ("ends", "queue", "window")

    def __init__(self, window: int, *, ends: bool) -> None:
        self.window = window
        self.ends = ends
        self.queue: deque[memoryview] = deque()


class Outbox:
    """Frames for the socket in `parts`, and bodies that wait for a window.

    What waits has used up its stream's window or the connection's, so that nothing that still
    fits can overtake it. `window` is the connection's; `streams` are those that are not wholly
    sent.
    """

    def __init__(self) -> None:
        self.parts: list[bytes | memoryview] = []
        self.window = DEFAULT_WINDOW
        self.streams: dict[int, Outgoing] = {}
        self._waiting: dict[int, Outgoing] = {}
        self._initial = DEFAULT_WINDOW
        self._max_frame = DEFAULT_FRAME_BYTES
        self._whole = DEFAULT_FRAME_BYTES

    def request(self, stream: int, baked: Baked) -> None:
        """Send a whole unary request on a new stream."""
        digits, size = stream.to_bytes(4), baked.size
        if size <= self._whole and size <= self.window:
            self.window -= size
            before = b"".join((baked.head, digits, baked.middle, digits))
            self._append(before, baked.body)
            return
        self.open(stream, baked.block(), ends=True)
        self._queue(stream, baked.body)

    def open(self, stream: int, block: bytes, *, ends: bool = False) -> None:
        """Send the headers of a new stream; with `ends` its first message is its last."""
        self.parts.append(frames.frame(HEADERS, END_HEADERS, stream, block))
        self.streams[stream] = Outgoing(self._initial, ends=ends)

    def message(self, stream: int, body: bytes) -> None:
        """Send a message, prefix and all, on an open stream."""
        outgoing, size = self.streams[stream], len(body)
        if size <= min(outgoing.window, self.window, self._max_frame):
            outgoing.window -= size
            self.window -= size
            self._append(frames.start(size, DATA, 0) + stream.to_bytes(4), body)
        else:
            self._queue(stream, body)

    def forget(self, stream: int) -> bool:
        """Send no more on a stream; True if it was not wholly sent."""
        self._waiting.pop(stream, None)
        return self.streams.pop(stream, None) is not None

    def credit(self, stream: int, size: int) -> None:
        """Widen a window; stream 0 is the connection.

        Raises:
            ProtocolError: by nothing, or beyond the largest.
        """
        if not size:
            raise ProtocolError("a window was widened by nothing")
        if not stream:
            self.window = _within(self.window + size)
        elif stream in self.streams:
            outgoing = self.streams[stream]
            outgoing.window = _within(outgoing.window + size)
        if self._waiting:
            self._pump()

    def limits(self, initial: int | None, max_frame: int | None) -> None:
        """Take over the server's settings; open streams follow the initial window.

        Raises:
            ProtocolError: a value that is not allowed.
        """
        if initial is not None:
            change = _within(initial) - self._initial
            self._initial = initial
            for outgoing in self.streams.values():
                outgoing.window = _within(outgoing.window + change)
        if max_frame is not None:
            if not DEFAULT_FRAME_BYTES <= max_frame <= frames.LARGEST_FRAME_BYTES:
                raise ProtocolError("bad frame size")
            self._max_frame = max_frame
        self._whole = min(self._initial, self._max_frame)
        self._pump()

    def _append(self, before: bytes, body: bytes) -> None:
        if len(body) <= _COPIED_BYTES:
            self.parts.append(before + body)
        else:
            self.parts += (before, body)

    def _queue(self, stream: int, body: bytes) -> None:
        outgoing = self.streams[stream]
        outgoing.queue.append(memoryview(body))
        self._waiting[stream] = outgoing
        self._pump()

    def _pump(self) -> None:
        """Send what waits, the oldest stream first, as far as the windows go."""
        for stream, outgoing in list(self._waiting.items()):
            if self.window <= 0:
                return
            self._write(stream, outgoing)
            if not outgoing.queue:
                del self._waiting[stream]
                if outgoing.ends:
                    del self.streams[stream]

    def _write(self, stream: int, outgoing: Outgoing) -> None:
        digits, queue = stream.to_bytes(4), outgoing.queue
        while queue:
            room = min(self.window, outgoing.window, self._max_frame)
            if room <= 0:
                return
            part, rest = queue[0][:room], queue[0][room:]
            if rest:
                queue[0] = rest
            else:
                queue.popleft()
            flags = END_STREAM if outgoing.ends and not queue else 0
            self.parts += (frames.start(len(part), DATA, flags) + digits, part)
            self.window -= len(part)
            outgoing.window -= len(part)


def _within(window: int) -> int:
    if window > MAX_WINDOW:
        raise ProtocolError("a window is too wide", ErrorCode.FLOW_CONTROL_ERROR)
    return window
