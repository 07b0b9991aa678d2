"""Unary calls over grpc.aio's servicer context."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import grpc
import grpc.aio
from inferd.tensors import Buffer

from inferd_server.errors import EngineFailure, InferdError
from inferd_server.transport.call import Metadata, UnaryHandler
from inferd_server.transport.cancellation import Cancellation
from inferd_server.transport.status import ERROR_KEY, sentence, status_code

log = logging.getLogger(__name__)
ServicerContext: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"


class AioContext:
    """What is known of a caller before any message."""

    def __init__(self, context: ServicerContext) -> None:
        self._context = context
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
    def cancelled(self) -> bool:
        """True once the caller went away."""
        return self._cancellation.cancelled

    async def abort(self, error: InferdError) -> None:
        """End the call with the status of an error."""
        self._context.set_trailing_metadata(((ERROR_KEY, type(error).__name__),))
        await self._context.abort(status_code(error), sentence(error))


class AioCall(AioContext):
    """A unary call: the answer is a future of the event loop."""

    def __init__(self, request: bytes, context: ServicerContext) -> None:
        super().__init__(context)
        self.request = request
        self._answer: asyncio.Future[bytes | InferdError] = self._loop.create_future()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the caller goes away before the answer; at once if it has."""
        self._cancellation.on_cancel(callback)

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
            self._cancellation.cancel()
            raise
        if isinstance(answer, InferdError):
            await self.abort(answer)
        assert isinstance(answer, bytes)
        return answer

    def _settle(self, answer: bytes | InferdError) -> None:
        try:
            self._loop.call_soon_threadsafe(self._set, answer)
        except RuntimeError:
            # The loop is closed, and with it the call.
            log.debug("an answer came after the transport stopped")

    def _set(self, answer: bytes | InferdError) -> None:
        if not self._answer.done():
            self._answer.set_result(answer)


def serve_unary(handler: UnaryHandler) -> Callable[[bytes, ServicerContext], Awaitable[bytes]]:
    """Return grpc.aio's form of a unary handler."""

    async def serve(request: bytes, context: ServicerContext) -> bytes:
        call = AioCall(request, context)
        try:
            handler(call)
        except Exception:
            log.exception("a handler failed")
            call.fail(EngineFailure())
        return await call.answer()

    return serve
