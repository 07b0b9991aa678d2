"""A second level that servers share: asked on a thread of its own, and never waited for long."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from inferd_server.batching.timers import Timers
from inferd_server.cache import frame
from inferd_server.cache.breaker import Breaker
from inferd_server.cache.key import Key, Owner
from inferd_server.cache.lookup import Found, Lookup, Stored
from inferd_server.monitoring.bounded_log import BoundedLog

log = logging.getLogger(__name__)

T = TypeVar("T")
MOST_AT_ONCE = 64
"""Operations that travel together."""
MOST_WAITING = 1024
"""Operations that may wait for the thread."""
MOST_WAITING_BYTES = 32 * 2**20
"""The same, for the bytes of answers to be stored."""
CLOSE_S = 1.0


class RemoteError(Exception):
    """The shared cache did not do what it was asked."""


class Exchanged(NamedTuple):
    """What came of an exchange with the shared cache."""

    found: Sequence[Stored | None]
    """For each key that was wanted."""
    refused: str = ""
    """Why something was not stored, as where there is no room; empty: all was."""


class Client(Protocol):
    """Talks to the shared cache. Used by one thread."""

    def connect(self) -> None:
        """Connect before there is anything to ask; blocks.

        Raises:
            RemoteError: it is not there, too slow, or refuses.
        """

    def exchange(self, wanted: Sequence[Key], stored: Sequence[tuple[Key, Stored]]) -> Exchanged:
        """Store these, and return what there is for each key that is wanted; blocks.

        Raises:
            RemoteError: it is not there, too slow, or refuses to tell.
        """

    def close(self) -> None:
        """Let the connection go."""


class Remote:
    """Asks and fills the shared cache. Every method may be called from any thread, and is quick."""

    def __init__(
        self,
        client: Client,
        breaker: Breaker,
        alarms: Timers,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        """Prepare; the thread starts with `open`, or with the first question.

        Args:
            client: for the thread alone.
            breaker: says whether it is worth to ask.
            alarms: end the wait for an answer.
            clock: monotonic seconds.
            patience: seconds that a request waits for an answer.
        """
        self._client = client
        self._breaker = breaker
        self._alarms = alarms
        self._clock = clock
        self._patience = patience
        self._lookups: deque[Lookup] = deque()
        self._stores: deque[tuple[Key, Stored]] = deque()
        self._bytes = 0
        self._damaged = BoundedLog(log, clock)
        self._closed = False
        self._connecting = False
        self._refused = ""
        """Why nothing was stored lately."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Connect, so that the first questions need not wait for that."""
        with self._changed:
            self._connecting = True
            self._wake()

    @property
    def available(self) -> bool:
        """True unless it failed so often that it is left alone."""
        return self._breaker.closed

    def lookup(self, key: Key, owner: Owner, found: Found) -> bool:
        """Ask for an answer; False, and no call back, if that is not worth it now.

        Args:
            key: of the request.
            owner: whose answer it is.
            found: called once, on another thread.
        """
        if not self._breaker.allows():
            return False
        lookup = Lookup(key, owner, found)
        with self._changed:
            if self._closed or len(self._lookups) >= MOST_WAITING:
                return False
            until = self._clock() + self._patience
            lookup.alarm = self._alarms.at(until, partial(self._give_up, lookup))
            self._lookups.append(lookup)
            self._wake()
        return True

    def store(self, key: Key, value: bytes, ttl: float) -> None:
        """Keep an answer there, unless it is gone or too slow for what it is given."""
        if not self._breaker.closed:
            return
        stored = Stored(frame.pack(key, value), ttl)
        with self._changed:
            full = len(self._stores) >= MOST_WAITING
            if self._closed or full or self._bytes + len(stored.data) > MOST_WAITING_BYTES:
                return
            self._stores.append((key, stored))
            self._bytes += len(stored.data)
            self._wake()

    def close(self) -> None:
        """Ask no more; who waits is told that nothing was found."""
        with self._changed:
            self._closed = True
            left = list(self._lookups)
            self._lookups.clear()
            self._changed.notify()
            thread = self._thread
        for lookup in left:
            lookup.settle(None)
        if thread is not None:
            thread.join(CLOSE_S)

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="shared cache", daemon=True)
            self._thread.start()
        self._changed.notify()

    def _give_up(self, lookup: Lookup) -> None:
        if lookup.settle(None):
            self._breaker.failed(f"no answer within {self._patience:g} s")

    def _live(self) -> None:
        if self._connecting:
            self._attempt(self._client.connect)
        while True:
            with self._changed:
                while not (self._lookups or self._stores or self._closed):
                    self._changed.wait()
                if self._closed:
                    break
                lookups = [self._lookups.popleft() for _ in range(_some(self._lookups))]
                stores = [self._stores.popleft() for _ in range(_some(self._stores))]
                self._bytes -= sum(len(stored.data) for _, stored in stores)
            self._exchange(lookups, stores)
        self._client.close()

    def _exchange(self, lookups: Sequence[Lookup], stores: Sequence[tuple[Key, Stored]]) -> None:
        wanted = [lookup.key for lookup in lookups]
        exchanged = self._attempt(partial(self._client.exchange, wanted, stores))
        if exchanged is not None and stores:
            self._stored(exchanged.refused)
        answers = [None] * len(lookups) if exchanged is None else exchanged.found
        for lookup, answer in zip(lookups, answers, strict=True):
            lookup.settle(None if answer is None else self._opened(lookup, answer))

    def _attempt(self, ask: Callable[[], T]) -> T | None:
        """Ask, and tell the breaker how that went; None if it failed."""
        try:
            answer = ask()
        except RemoteError as error:
            self._breaker.failed(str(error))
        except Exception:
            log.exception("the shared cache could not be asked")
            self._breaker.failed("see the log")
        else:
            self._breaker.succeeded()
            return answer
        return None

    def _stored(self, refused: str) -> None:
        """Say once that nothing can be stored, and once that it can be again."""
        if refused and not self._refused:
            log.warning("the shared cache keeps no more answers", extra={"why": refused})
        elif self._refused and not refused:
            log.info("the shared cache keeps answers again")
        self._refused = refused

    def _opened(self, lookup: Lookup, stored: Stored) -> Stored | None:
        """Return the answer inside; None, and a line in the log, if it cannot be trusted."""
        value = frame.unpack(lookup.key, stored.data)
        if value is not None:
            return Stored(value, stored.ttl)
        model, version, _ = lookup.owner
        what = {"model": model, "version": version, "key": lookup.key.hex()}
        text = "a damaged answer in the shared cache"
        self._damaged((model, version), logging.WARNING, text, what)
        return None


def _some(waiting: deque[Lookup] | deque[tuple[Key, Stored]]) -> int:
    return min(len(waiting), MOST_AT_ONCE)
