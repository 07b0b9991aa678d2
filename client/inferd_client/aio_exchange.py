"""A stream on an asyncio channel: one task sends while the caller reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import grpc

from inferd_client.connection import translated_await
from inferd_client.final_status import FinalStatus
from inferd_client.ledger import Ledger, StreamItem
from inferd_client.requests import Request


class Feed:
    """The requests of one stream, no more than `limit` of them in flight.

    Whatever the caller's iterator raises ends the feed, and is kept in `failure`.
    """

    def __init__(
        self,
        requests: Iterable[Request] | AsyncIterable[Request],
        ledger: Ledger,
        limit: int,
        typed: Callable[[Request], Awaitable[Request]],
    ) -> None:
        self.failure: BaseException | None = None
        self.all_sent = False
        self._requests = _asynchronous(requests)
        self._ledger = ledger
        self._typed = typed
        self._places = asyncio.Semaphore(limit)

    async def write_to(self, call: Any) -> None:
        """Write every request, then close the sending side."""
        try:
            await self._write_all(call)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return  # The call is over, and the reader is told why.
        except BaseException as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # The reader has gone.
            # KeyboardInterrupt of a task would end the loop, and a CancelledError this task alone.
            self.failure = error
        await call.done_writing()

    async def _write_all(self, call: Any) -> None:
        await self._places.acquire()
        async for request in self._requests:
            await call.write(self._ledger.enter(await self._typed(request)))
            await self._places.acquire()
        self.all_sent = True

    def release(self) -> None:
        """Give back the place of a request that was answered."""
        self._places.release()


async def _asynchronous(
    requests: Iterable[Request] | AsyncIterable[Request],
) -> AsyncIterator[Request]:
    if isinstance(requests, AsyncIterable):
        async for request in requests:
            yield request
    else:
        for request in requests:
            yield request


async def exchange(
    call: Any,
    requests: Iterable[Request] | AsyncIterable[Request],
    limit: int,
    address: str,
    typed: Callable[[Request], Awaitable[Request]],
) -> AsyncIterator[StreamItem]:
    """Send requests and yield their answers in the order of arrival.

    Raises:
        InferdError: the stream as a whole failed.
        BaseException: what `requests` raised, once all that was sent before is answered.
    """
    ledger = Ledger()
    feed = Feed(requests, ledger, limit, typed)
    final = FinalStatus(call)
    writer = asyncio.create_task(feed.write_to(call))
    try:
        with translated_await(address):
            while (response := await _next(call, final)) is not grpc.aio.EOF:
                item = ledger.settle(response)
                feed.release()
                yield item
    finally:
        call.cancel()
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
    if feed.failure is not None:
        raise feed.failure
    ledger.close(all_sent=feed.all_sent)


async def _next(call: Any, final: FinalStatus) -> Any:
    try:
        return await call.read()
    except grpc.RpcError as error:
        raise final.error or error from None
