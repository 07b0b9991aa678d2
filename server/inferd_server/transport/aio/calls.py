"""Calls and streams over grpc.aio's servicer context."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio
from inferd.tensors import Buffer

from inferd_server.errors import InferdError
from inferd_server.transport.call import Metadata, Receiver, StreamHandler, UnaryHandler
from inferd_server.transport.status import ERROR_KEY, status_code

ServicerContext: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Answer: TypeAlias = bytes | InferdError | None


class AioContext:
    """What is known of a caller before any message."""

    def __init__(self, context: ServicerContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else time.monotonic() + remaining
        self.cancelled = False

    @property
    def peer(self) -> str:
        """The caller's address, such as "ipv4:127.0.0.1:4711"."""
        return self._context.peer()

    async def abort(self, error: InferdError) -> None:
        """End the call with the status of an error."""
        self._context.set_trailing_metadata(((ERROR_KEY, type(error).__name__),))
        await self._context.abort(status_code(error), str(error))


class AioCall(AioContext):
    """A unary call: the answer is a future of the event loop."""

    def __init__(self, request: bytes, context: ServicerContext) -> None:
        super().__init__(context)
        self.request = request
        self._answer: asyncio.Future[Answer] = self._loop.create_future()
        self._on_cancel: Callable[[], None] | None = None

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back on the event loop if the caller goes away before the answer."""
        self._on_cancel = callback

    def reply(self, parts: Sequence[Buffer]) -> None:
        """Answer; the parts are copied before this returns."""
        self._settle(b"".join(parts))

    def fail(self, error: InferdError) -> None:
        """Answer with a status."""
        self._settle(error)

    async def answer(self) -> bytes:
        """Wait for the answer and return it, or abort."""
        try:
            answer = await self._answer
        except asyncio.CancelledError:
            self.cancelled = True
            if self._on_cancel is not None:
                self._on_cancel()
            raise
        if isinstance(answer, InferdError):
            await self.abort(answer)
        assert isinstance(answer, bytes)
        return answer

    def _settle(self, answer: Answer) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, answer)
        except RuntimeError:
            # The loop is closed: nobody is left to be answered.
            self.cancelled = True

    def _set(self, answer: Answer) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


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
            await self._context.write(message)
            self._unanswered -= 1
            self._written.set()

    async def read(self, messages: AsyncIterator[bytes], receiver: Receiver) -> None:
        """Hand over what arrives, never too far ahead of the answers."""
        async for message in messages:
            self._unanswered += 1
            receiver.message(message)
            while self._unanswered >= self._max_messages:
                self._written.clear()
                await self._written.wait()
        receiver.half_closed()

    def _post(self, message: Answer) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, message)
        except RuntimeError:
            self.cancelled = True

    def _put(self, message: Answer) -> None:
        self._outbox.append(message)
        self._filled.set()


def serve_unary(handler: UnaryHandler) -> Callable[[bytes, ServicerContext], Awaitable[bytes]]:
    """Return grpc.aio's form of a unary handler."""

    async def serve(request: bytes, context: ServicerContext) -> bytes:
        call = AioCall(request, context)
        handler(call)
        return await call.answer()

    return serve


def serve_stream(
    handler: StreamHandler, max_messages: int
) -> Callable[[AsyncIterator[bytes], ServicerContext], Awaitable[None]]:
    """Return grpc.aio's form of a stream handler."""

    async def serve(messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        stream = AioStream(context, max_messages)
        receiver = handler(stream)
        reader = asyncio.ensure_future(stream.read(messages, receiver))
        writer = asyncio.ensure_future(stream.write())
        try:
            await _until_over(reader, writer)
        except asyncio.CancelledError:
            stream.cancelled = True
            raise
        finally:
            stream.cancelled = stream.cancelled or not writer.done()
            receiver.cancel()
            await _end(reader, writer)

    return serve


async def _until_over(reader: asyncio.Future[None], writer: asyncio.Future[None]) -> None:
    """Wait for the writer, or for the reader to fail."""
    await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
    if not writer.done():
        await reader
    await writer


async def _end(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
