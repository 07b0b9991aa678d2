"""Streams over grpc.aio's servicer context."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc.aio
from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.aio.calls import AioContext, ServicerContext
from inferd_server.transport.call import Receiver, StreamHandler

log = logging.getLogger(__name__)
Answer: TypeAlias = bytes | InferdError | None
"""A message, or the end of the stream: with an error, or with OK."""


class AioStream(AioContext):
    """A stream: an outbox that one task writes from."""

    def __init__(self, context: ServicerContext, max_messages: int) -> None:
        super().__init__(context)
        self._outbox: deque[Answer] = deque()
        self._filled = asyncio.Event()
        self._written = asyncio.Event()
        self._unanswered = 0
        self._max_messages = max_messages

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message; the parts are copied before this returns."""
        self._post(b"".join(parts))

    def finish(self) -> None:
        """End the call with OK."""
        self._post(None)

    def fail(self, error: InferdError) -> None:
        """End the call with a status."""
        self._post(error)

    async def write(self) -> None:
        """Write what is sent until the stream is over."""
        while True:
            while not self._outbox:
                self._filled.clear()
                await self._filled.wait()
            message = self._outbox.popleft()
            if message is None:
                return
            if isinstance(message, InferdError):
                await self.abort(message)
                return
            try:
                await self._context.write(message)
            except grpc.aio.BaseError:
                # The caller went away, or the message is above the limit: the call is over.
                self.gone()
                return
            # A stream that sends more than it was asked must not gain read-ahead by it.
            self._unanswered = max(0, self._unanswered - 1)
            self._written.set()

    async def read(self, messages: AsyncIterator[bytes], receiver: Receiver) -> None:
        """Hand over what arrives, never too far ahead of the answers."""
        try:
            async for message in messages:
                self._unanswered += 1
                receiver.message(message)
                while self._unanswered >= self._max_messages:
                    self._written.clear()
                    await self._written.wait()
            receiver.half_closed()
        except grpc.aio.BaseError:
            log.debug("a stream ended while it was read from")
        except Exception:
            log.exception("a stream's receiver failed")
            self.fail(EngineFailure())

    def gone(self) -> None:
        """Remember that the caller went away."""
        self._cancellation.cancel()

    def _post(self, message: Answer) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:
            # The loop is closed, and with it the call.
            log.debug("a message came after the transport stopped")

    def _put(self, message: Answer) -> None:
        self._outbox.append(message)
        self._filled.set()


class LiveStreams:
    """The receivers of one server's streams, to be drained when it stops. Event loop only."""

    def __init__(self) -> None:
        self._receivers: set[Receiver] = set()
        self._draining = False

    def add(self, receiver: Receiver) -> None:
        """Know a new stream."""
        self._receivers.add(receiver)
        if self._draining:
            receiver.drain()

    def remove(self, receiver: Receiver) -> None:
        """Forget a stream that is over."""
        self._receivers.discard(receiver)

    def drain(self) -> None:
        """Drain every stream, and those that still come."""
        self._draining = True
        for receiver in tuple(self._receivers):
            receiver.drain()


def serve_stream(
    handler: StreamHandler, max_messages: int, live: LiveStreams
) -> Callable[[AsyncIterator[bytes], ServicerContext], Awaitable[None]]:
    """Return grpc.aio's form of a stream handler."""

    async def serve(messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        stream = AioStream(context, max_messages)
        try:
            receiver = handler(stream)
        except Exception:
            log.exception("a handler failed")
            await stream.abort(EngineFailure())
            return
        live.add(receiver)
        try:
            await _carry(stream, messages, receiver)
        finally:
            live.remove(receiver)
            receiver.cancel()

    return serve


async def _carry(stream: AioStream, messages: AsyncIterator[bytes], receiver: Receiver) -> None:
    """Read and write until the writer says that the stream is over."""
    reader = asyncio.ensure_future(stream.read(messages, receiver))
    writer = asyncio.ensure_future(stream.write())
    try:
        await writer
    except asyncio.CancelledError:
        stream.gone()
        raise
    finally:
        await _end(reader, writer)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
