"""Streams over grpc.aio's servicer context."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc.aio
from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.aio.calls import AioContext, ServicerContext, admitted
from inferd_server.transport.call import Authorize, Metadata, Receiver, Refused, StreamHandler
from inferd_server.transport.in_flight import ByteBounds, Unanswered, UnsentBytes
from inferd_server.transport.live import Live
from inferd_server.transport.metadata import checked
from inferd_server.transport.status import CallStatus, error_status, given_up, ok_status

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Initial:
    """Metadata ahead of everything."""

    metadata: Metadata


Answer: TypeAlias = bytes | Initial | CallStatus
"""What is sent."""


class AioStream(AioContext):
    """A stream: an outbox that one task writes from."""

    def __init__(
        self, context: ServicerContext, max_messages: int, bounds: ByteBounds, refused: Refused
    ) -> None:
        super().__init__(context, refused)
        self._outbox: deque[Answer] = deque()
        self._filled = asyncio.Event()
        self._written = asyncio.Event()
        self._bounds = bounds
        self._unanswered = Unanswered(bounds.requests, max_messages)
        self._begun = False
        self._ended = False

    @property
    def unsent(self) -> UnsentBytes:
        """Where the bytes of its answers count."""
        return self._bounds.answers

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of everything; ignored the second time, or after a message."""
        self._post(Initial(checked(metadata)))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message; the parts are copied before this returns."""
        self._post(b"".join(parts))

    def finish(self, trailing: Metadata = ()) -> None:
        """End the call with OK."""
        self._post(ok_status(checked(trailing)))

    def fail(self, error: InferdError) -> None:
        """End the call with a status."""
        self._post(self.refuse(error))

    def give_up(self) -> None:
        """End the call because the server stops; on the event loop."""
        if not self._ended:
            self._put(error_status(given_up()))
            self.gone()

    async def write(self) -> None:
        """Write what is sent until the stream is over."""
        while True:
            while not self._outbox:
                self._filled.clear()
                await self._filled.wait()
            answer = self._outbox.popleft()
            if isinstance(answer, CallStatus):
                await self.end(answer)
                return
            if not await self._written_out(answer):
                # The caller went away, or the message is above the limit: the call is over.
                self.gone()
                return

    async def _written_out(self, answer: bytes | Initial) -> bool:
        try:
            if isinstance(answer, Initial):
                await self._context.send_initial_metadata(answer.metadata)
            else:
                await self._context.write(answer)
                self._unanswered.answered()
                self._written.set()
        except grpc.aio.BaseError:
            return False
        finally:
            if isinstance(answer, bytes):
                self._bounds.answers.give(len(answer))
        return True

    async def read(self, messages: AsyncIterator[bytes], receiver: Receiver) -> None:
        """Hand over what arrives, never too far ahead of the answers."""
        try:
            async for message in messages:
                if self._ended:
                    # Nothing that comes now can be answered.
                    return
                if (plain := self._plain(message)) is None:
                    return
                del message
                if not self._unanswered.received(len(plain)):
                    self.fail(self._bounds.requests.refusal(len(plain)))
                    return
                receiver.message(plain)
                del plain
                while self._unanswered.full:
                    self._written.clear()
                    await self._written.wait()
            receiver.half_closed()
        except grpc.aio.BaseError:
            log.debug("a stream ended while it was read from")
        except Exception:
            log.exception("a stream's receiver failed")
            self.fail(EngineFailure())

    def _plain(self, message: bytes) -> bytes | None:
        """Decompress a message; None if that ends the stream."""
        try:
            return self._bounds.compression.plain(message)
        except InferdError as error:
            self.fail(error)
            return None

    def gone(self) -> None:
        """Remember that the caller went away."""
        self._cancellation.cancel()

    def over(self) -> None:
        """The call is over: no message of it awaits its answer, and no answer its caller."""
        self._ended = True
        self._unanswered.over()
        for answer in self._outbox:
            if isinstance(answer, bytes):
                self._bounds.answers.give(len(answer))
        self._outbox.clear()

    def _post(self, answer: Answer) -> None:
        self._soon(lambda: self._put(answer))

    def _put(self, answer: Answer) -> None:
        if self._ended or (isinstance(answer, Initial) and self._begun):
            return
        if isinstance(answer, bytes) and not self._bounds.answers.take(len(answer)):
            answer = self.refuse(self._bounds.answers.refusal(len(answer)))
        self._begun = True
        self._ended = isinstance(answer, CallStatus)
        self._outbox.append(answer)
        self._filled.set()


@dataclass(frozen=True)
class OpenStream:
    """A stream and who receives its messages."""

    stream: AioStream
    receiver: Receiver

    def drain(self) -> None:
        """Tell the receiver that the server is stopping."""
        self.receiver.drain()

    def give_up(self) -> None:
        """End the call because the server stops."""
        self.stream.give_up()


class StreamServer:
    """What the streams of one server share. Event loop only."""

    def __init__(self, max_messages: int, bounds: ByteBounds) -> None:
        self.live: Live[OpenStream] = Live()
        self._max_messages = max_messages
        self._bounds = bounds

    def method(
        self, handler: StreamHandler, authorize: Authorize | None, refused: Refused
    ) -> Callable[[AsyncIterator[bytes], ServicerContext], Awaitable[None]]:
        """Return grpc.aio's form of a handler."""

        async def serve(messages: AsyncIterator[bytes], context: ServicerContext) -> None:
            if authorize is not None and not await admitted(authorize, context):
                return
            stream = AioStream(context, self._max_messages, self._bounds, refused)
            try:
                receiver = handler(stream)
            except Exception:
                log.exception("a handler failed")
                await stream.end(error_status(EngineFailure()))
                return
            opened = OpenStream(stream, receiver)
            self.live.add(opened)
            try:
                await carry(stream, messages, receiver)
            finally:
                self.live.remove(opened)
                stream.over()
                receiver.cancel()

        return serve


async def carry(stream: AioStream, messages: AsyncIterator[bytes], receiver: Receiver) -> None:
    """Read and write until the writer says that the stream is over."""
    reader = asyncio.ensure_future(stream.read(messages, receiver))
    writer = asyncio.ensure_future(stream.write())
    try:
        await writer
    except asyncio.CancelledError:
        stream.gone()
        raise
    finally:
        await end(reader, writer)


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait for them."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
