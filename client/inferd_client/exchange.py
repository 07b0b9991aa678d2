"""A stream on a blocking channel: one thread sends while the caller reads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from inferd.oip.v2 import inference_pb2

from inferd_client.connection import translated
from inferd_client.ledger import Ledger, StreamItem
from inferd_client.requests import Request


class Feed(Iterator[inference_pb2.ModelInferRequest]):
    """The requests of one stream, no more than `limit` of them in flight.

    gRPC iterates over it on a thread of its own. Whatever the caller's iterator raises ends
    the feed, and is kept in `failure` for the thread that reads.
    """

    def __init__(
        self,
        requests: Iterable[Request],
        ledger: Ledger,
        limit: int,
        typed: Callable[[Request], Request],
    ) -> None:
        self.failure: BaseException | None = None
        self.all_sent = False
        self._requests = iter(requests)
        self._ledger = ledger
        self._typed = typed
        self._places = threading.Semaphore(limit)
        self._stopped = False

    def __next__(self) -> inference_pb2.ModelInferRequest:
        self._places.acquire()
        if self._stopped:
            raise StopIteration
        try:
            return self._ledger.enter(self._typed(next(self._requests)))
        except StopIteration:
            self.all_sent = True
            raise
        except BaseException as error:  # whatever ends this thread, the reader has to hear of it
            self.failure = error
            raise StopIteration from error

    def release(self) -> None:
        """Give back the place of a request that was answered."""
        self._places.release()

    def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        self._places.release()


def exchange(
    call: Callable[[Iterator[inference_pb2.ModelInferRequest]], Any],
    requests: Iterable[Request],
    limit: int,
    address: str,
    typed: Callable[[Request], Request],
) -> Iterator[StreamItem]:
    """Send requests and yield their answers in the order of arrival.

    Raises:
        InferdError: the stream as a whole failed.
        BaseException: what `requests` raised, once all that was sent before is answered.
    """
    ledger = Ledger()
    feed = Feed(requests, ledger, limit, typed)
    with translated(address):
        responses = call(feed)
        try:
            for response in responses:
                item = ledger.settle(response)
                feed.release()
                yield item
        finally:
            feed.stop()
            responses.cancel()
    if feed.failure is not None:
        raise feed.failure
    ledger.close(all_sent=feed.all_sent)
