"""The client's end of one HTTP/2 connection to a gRPC server, without its socket."""

from __future__ import annotations

import math
from collections.abc import Callable

from inferd_client.bench.fast import frames
from inferd_client.bench.fast.call import Call, code_of_reset
from inferd_client.bench.fast.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    MAX_STREAM,
    MAX_WINDOW,
    PADDED,
    WITH_PRIORITY,
    ErrorCode,
    FrameReader,
    ProtocolError,
    Setting,
)
from inferd_client.bench.fast.header_block import StatusReader
from inferd_client.bench.fast.outbox import Baked, Outbox

# Half of a window.
CREDIT_BYTES = 2**30

_HELLO = (
    frames.PREFACE
    + frames.settings(
        {
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: MAX_WINDOW,
            Setting.MAX_FRAME_SIZE: frames.OUR_FRAME_BYTES,
        }
    )
    + frames.frame(frames.WINDOW_UPDATE, 0, 0, (MAX_WINDOW - frames.DEFAULT_WINDOW).to_bytes(4))
)


class Connection:
    """Sends calls, and gives each what comes back for it.

    Attributes:
        outbox: what is to be written to the socket.
        credit: bytes received before a window of the server is filled up again.
        calls: those in flight by the number of their stream.
        retired: takes no more calls; over once `calls` is empty.
        answered: a call ended as the server wanted.
    """

    def __init__(self, credit: int = CREDIT_BYTES) -> None:
        """Prepare; `credit` bytes may come before the server's windows are filled up again."""
        self.credit = credit
        self.outbox = Outbox()
        self.outbox.parts.append(_HELLO)
        self.calls: dict[int, Call] = {}
        self.retired = False
        self.answered = False
        self._statuses = StatusReader()
        self._reader = FrameReader()
        self._next = 1
        # No call before the server's settings, which bound what it may be sent.
        self._greeted = False
        self._most: float = 0
        self._received = 0
        self._early: dict[int, str] = {}
        self._unfinished: tuple[int, int, bytes] | None = None
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._data,
            frames.HEADERS: self._headers,
            frames.CONTINUATION: self._continuation,
            frames.RST_STREAM: self._reset,
            frames.SETTINGS: self._settings,
            frames.PUSH_PROMISE: self._push,
            frames.PING: self._ping,
            frames.GOAWAY: self._goaway,
            frames.WINDOW_UPDATE: self._credit,
        }

    @property
    def has_room(self) -> bool:
        """True if one more call may start now."""
        return len(self.calls) < self._most and not self.retired

    def request(self, baked: Baked, call: Call) -> int:
        """Start a unary call and return its stream."""
        stream = self._number(call)
        self.outbox.request(stream, baked)
        return stream

    def open(self, block: bytes, call: Call) -> int:
        """Start a call of many messages and return its stream."""
        stream = self._number(call)
        self.outbox.open(stream, block)
        return stream

    def cancel(self, stream: int) -> None:
        """Give up a call, which hears no more of it."""
        if self.calls.pop(stream, None) is not None:
            self._early.pop(stream, None)
            self._give_up(stream)

    def widen(self, stream: int, size: int) -> None:
        """Let the server send so many bytes more; stream 0 is the connection."""
        payload = size.to_bytes(4)
        self.outbox.parts.append(frames.frame(frames.WINDOW_UPDATE, 0, stream, payload))

    def receive(self, data: bytes) -> None:
        """Take what the socket gave.

        Raises:
            ProtocolError: the server broke the protocol.
        """
        handlers = self._handlers
        for kind, flags, stream, payload in self._reader.frames(data):
            if self._unfinished is not None and kind != frames.CONTINUATION:
                raise ProtocolError("headers were interrupted")
            handler = handlers.get(kind)
            if handler is not None:
                handler(flags, stream, payload)
        if self._received >= self.credit:
            self.widen(0, self._received)
            self._received = 0

    def lost(self, code: str) -> None:
        """Nothing more will come: every call fails with that code."""
        self.retired = True
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.ended(code)

    def _number(self, call: Call) -> int:
        stream = self._next
        self._next = stream + 2
        self.calls[stream] = call
        if self._next > MAX_STREAM:
            self.retired = True
        return stream

    def _give_up(self, stream: int) -> None:
        self.outbox.forget(stream)
        payload = ErrorCode.CANCEL.to_bytes(4)
        self.outbox.parts.append(frames.frame(frames.RST_STREAM, 0, stream, payload))

    def _data(self, flags: int, stream: int, payload: bytes) -> None:
        self._received += len(payload)
        call = self.calls.get(stream)
        if flags & PADDED:
            padded, payload = len(payload), frames.content(frames.DATA, flags, payload)
            if call is not None:
                # Calls count what they get; the window counts the padding, too.
                self.widen(stream, padded - len(payload))
        if call is None:
            return
        if payload:
            call.data(payload)
        if flags & END_STREAM:
            self._end(stream, None)

    def _headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & (PADDED | WITH_PRIORITY):
            payload = frames.content(frames.HEADERS, flags, payload)
        if not flags & END_HEADERS:
            self._unfinished = (flags, stream, payload)
            return
        code = self._statuses.code(payload)
        if flags & END_STREAM:
            self._end(stream, code)
        elif code is not None and stream in self.calls:
            self._early[stream] = code

    def _continuation(self, flags: int, stream: int, payload: bytes) -> None:
        if self._unfinished is None or self._unfinished[1] != stream:
            raise ProtocolError("continues no headers")
        first, _, block = self._unfinished
        if not flags & END_HEADERS:
            self._unfinished = (first, stream, block + payload)
            return
        self._unfinished = None
        self._headers(first & END_STREAM | END_HEADERS, stream, block + payload)

    def _end(self, stream: int, code: str | None) -> None:
        call = self.calls.pop(stream, None)
        if call is None:
            return
        self.answered = True
        early = self._early.pop(stream, None) if self._early else None
        if stream in self.outbox.streams:
            self._give_up(stream)
        call.ended(code or early or "UNKNOWN")

    def _reset(self, _: int, stream: int, payload: bytes) -> None:
        error = frames.number(payload)
        call = self.calls.pop(stream, None)
        if call is not None:
            self._early.pop(stream, None)
            self.outbox.forget(stream)
            call.ended(code_of_reset(error))

    def _settings(self, flags: int, _: int, payload: bytes) -> None:
        if flags & ACK:
            return
        values = dict(frames.settings_of(payload))
        known = self._most if self._greeted else math.inf
        self._most = values.get(Setting.MAX_CONCURRENT_STREAMS, known)
        self._greeted = True
        self.outbox.parts.append(frames.frame(frames.SETTINGS, ACK, 0))
        self.outbox.limits(
            values.get(Setting.INITIAL_WINDOW_SIZE), values.get(Setting.MAX_FRAME_SIZE)
        )

    def _push(self, _: int, __: int, ___: bytes) -> None:
        raise ProtocolError("pushed, and was told not to")

    def _ping(self, flags: int, _: int, payload: bytes) -> None:
        if not flags & ACK:
            self.outbox.parts.append(frames.frame(frames.PING, ACK, 0, payload))

    def _goaway(self, _: int, __: int, payload: bytes) -> None:
        last = frames.number(payload, 8) & MAX_STREAM
        self.retired = True
        for stream in [stream for stream in self.calls if stream > last]:
            self.outbox.forget(stream)
            self._early.pop(stream, None)
            self.calls.pop(stream).unprocessed()

    def _credit(self, _: int, stream: int, payload: bytes) -> None:
        self.outbox.credit(stream, frames.number(payload) & MAX_WINDOW)
