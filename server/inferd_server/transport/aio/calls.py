"""Unary calls over grpc.aio's servicer context."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

import grpc
import grpc.aio
from inferd.tensors import Buffer

from inferd_server.errors import Cancelled, EngineFailure, InferdError
from inferd_server.transport.call import Authorize, Metadata, Refused, UnaryHandler, ignore
from inferd_server.transport.cancellation import Cancellation
from inferd_server.transport.in_flight import ByteBounds, UnsentBytes
from inferd_server.transport.live import Live
from inferd_server.transport.metadata import checked
from inferd_server.transport.status import CallStatus, error_status, given_up
from inferd_server.transport.tls import text_names

log = logging.getLogger(__name__)
ServicerContext: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
Serve: TypeAlias = Callable[[bytes, ServicerContext], Awaitable[bytes]]
"""grpc.aio's form of a unary handler."""
Answer: TypeAlias = tuple[bytes, Metadata] | CallStatus
"""A message with its trailing metadata, or an error's status."""


class AioContext:
    """What is known of a caller before any message."""

    def __init__(self, context: ServicerContext, refused: Refused = ignore) -> None:
        """Take a call; `refused` is told of errors that have a reason."""
        self._context = context
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._cancellation = Cancellation()
        self.metadata: Metadata = tuple(context.invocation_metadata() or ())
        remaining = context.time_remaining()
        self.deadline = None if remaining is None else time.monotonic() + remaining

    @property
    def peer(self) -> str:
        """The caller's address, such as "ipv4:127.0.0.1:4711"."""
        return self._context.peer()

    @property
    def certificate_names(self) -> Sequence[str]:
        """Names in the certificate that the caller showed; () without one."""
        return text_names(self._context.peer_identities())

    @property
    def cancelled(self) -> bool:
        """True once the caller went away."""
        return self._cancellation.cancelled

    async def end(self, how: CallStatus) -> None:
        """Send the status, or leave that of a success to the return of the handler.

        A message of nothing, which would go with a status that is only set, waits for the caller's
        window. grpc.aio keeps the error by which it aborts, here without the frames that it passed.
        """
        if how.code is grpc.StatusCode.OK:
            self._context.set_trailing_metadata(how.trailing)
            return
        try:
            await self._context.abort(how.code, how.text, how.trailing)
        except grpc.aio.AbortError as error:
            error.__traceback__ = None

    def refuse(self, error: InferdError) -> CallStatus:
        """Return the status of an error, of which is told who wants to know."""
        if error.reason:
            self._refused(self, error)
        return error_status(error)

    def _soon(self, act: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            # The loop is closed, and with it the call.
            log.debug("an answer came after the transport stopped")


class AioCall(AioContext):
    """A unary call: the answer is a future of the event loop."""

    stream = None

    def __init__(self, request: bytes, context: ServicerContext, refused: Refused) -> None:
        super().__init__(context, refused)
        self.request = request
        self._answer: asyncio.Future[Answer] = self._loop.create_future()
        self._beginning: asyncio.Future[None] | None = None

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the caller goes away before the answer; at once if it has."""
        self._cancellation.on_cancel(callback)

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of the answer; ignored the second time, or after the answer."""
        metadata = checked(metadata)
        self._soon(lambda: self._begin(metadata))

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer; the parts are copied before this returns."""
        answer = b"".join(parts), checked(trailing)
        self._soon(lambda: self._settle(answer))

    def fail(self, error: InferdError) -> None:
        """Answer with a status."""
        how = self.refuse(error)
        self._soon(lambda: self._settle(how))

    def give_up(self) -> None:
        """Answer that the server stops, and cancel; on the event loop."""
        if not self._answer.done():
            # In this order: an answered call forgets who wanted to be told.
            self._cancellation.cancel()
            self._settle(error_status(given_up()))

    async def answer(self) -> bytes:
        """Wait for the answer and return it; nothing counts beside the status of an error."""
        try:
            answer = await self._answer
            if self._beginning is not None:
                await self._beginning
        except asyncio.CancelledError:
            self._cancellation.cancel()
            raise
        if isinstance(answer, CallStatus):
            await self.end(answer)
            return b""
        message, trailing = answer
        if trailing:
            self._context.set_trailing_metadata(trailing)
        return message

    def _begin(self, metadata: Metadata) -> None:
        if self._beginning is None and not self._answer.done():
            self._beginning = asyncio.ensure_future(self._context.send_initial_metadata(metadata))

    def _settle(self, answer: Answer) -> None:
        if not self._answer.done():
            # Others may keep the call for a while, and need not keep that.
            self.request = b""
            self._cancellation.forget()
            self._answer.set_result(answer)


class UnaryServer:
    """What the unary calls of one server share. Event loop only."""

    def __init__(self, bounds: ByteBounds) -> None:
        self.live: Live[AioCall] = Live()
        self.ends = asyncio.Event()
        """Cleared while answers have to wait."""
        self.ends.set()
        self._bounds = bounds

    def method(self, handler: UnaryHandler, refused: Refused) -> Serve:
        """Return grpc.aio's form of a handler; `refused` is told of errors that have a reason."""

        async def serve(request: bytes, context: ServicerContext) -> bytes:
            call = AioCall(request, context, refused)
            if not admits(self._bounds, call):
                return await call.answer()
            size = len(call.request)
            self.live.add(call)
            try:
                handle(handler, call)
                answer = await call.answer()
            finally:
                self.live.remove(call)
                call.request = b""
                self._bounds.requests.put_back(size)
            await self.ends.wait()
            if not count_unsent(self._bounds.answers, len(answer)):
                await call.end(call.refuse(self._bounds.answers.refusal(len(answer))))
                return b""
            return answer

        return serve


def authorized(
    authorize: Authorize, serve: Serve
) -> Callable[[AsyncIterator[bytes], ServicerContext], Awaitable[bytes]]:
    """Return a handler that decides on a call before its message is received.

    In the form of a stream of requests: only those are received when the handler asks for them.
    """

    async def decided(_: AsyncIterator[bytes], context: ServicerContext) -> bytes:
        if not await admitted(authorize, context):
            return b""
        request = await context.read()
        if isinstance(request, bytes):
            return await serve(request, context)
        text = "the caller ended the call before its message"
        await AioContext(context).end(error_status(Cancelled(text)))
        return b""

    return decided


async def admitted(authorize: Authorize, context: ServicerContext) -> bool:
    """Decide on a call, and end it if it is refused."""
    caller = AioContext(context)
    try:
        error = authorize(caller)
    except Exception:
        log.exception("a call could not be decided on")
        error = EngineFailure()
    if error is not None:
        await caller.end(error_status(error))
    return error is None


def count_unsent(answers: UnsentBytes, size: int) -> bool:
    """Count the answer of this task's call until the task ends, which is when grpc.aio has sent it.

    Not with grpc.aio's own callback, which would refer to the call and the call to it.
    """
    task = asyncio.current_task()
    if task is None or not answers.take(size):
        return False
    task.add_done_callback(lambda _: answers.give(size))
    return True


def admits(bounds: ByteBounds, call: AioCall) -> bool:
    """Decompress and count a call's request; False if it was refused."""
    try:
        call.request = bounds.compression.plain(call.request)
    except InferdError as error:
        call.fail(error)
        return False
    size = len(call.request)
    if not bounds.requests.take(size):
        call.fail(bounds.requests.refusal(size))
        return False
    return True


def handle(handler: UnaryHandler, call: AioCall) -> None:
    """Let a handler have a call; what it raises is answered."""
    try:
        handler(call)
    except Exception:
        log.exception("a handler failed")
        call.fail(EngineFailure())
