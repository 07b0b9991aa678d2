"""How many bytes of requests and answers are here, and the bounds on them.

A request counts until it has its answer, an answer until gRPC has sent or dropped it. The
allocator keeps what large messages once took (environment.py) until the server is idle, so that
this bounds what it can keep, too. Messages that gRPC is still receiving are not counted.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from inferd_server.errors import InvalidInput, MemoryBudgetExceeded
from inferd_server.transport.compression import Compression
from inferd_server.transport.options import TransportOptions


class InFlightBytes:
    """A count without a lock of its own: what each method may rely on is said there."""

    __slots__ = ("_given", "_limit", "_taken", "awaited")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.awaited = 0
        """Calls whose message is still being received. Receiving thread only."""
        # Two numbers with one writer each, so that taking needs no lock.
        self._taken = 0
        self._given = 0

    @property
    def held(self) -> int:
        """Bytes in flight now."""
        return self._taken - self._given

    @property
    def total(self) -> int:
        """Bytes in all so far."""
        return self._taken

    def take(self, size: int) -> bool:
        """Count a request that arrived; False if there is no room. Receiving thread only."""
        if size > self._limit - self._taken + self._given:
            return False
        self._taken += size
        return True

    def put_back(self, size: int) -> None:
        """Count no longer what was taken. Receiving thread only."""
        self._taken -= size

    def give(self, size: int) -> None:
        """Count no longer what was taken. With a lock, always the same one, held."""
        self._given += size

    def refusal(self, size: int) -> InvalidInput | MemoryBudgetExceeded:
        """Return the sentence for a request that found no room, or never will."""
        if size > self._limit:
            return InvalidInput(
                f"this request has {size} bytes, and all requests that await their answer may have "
                f"{self._limit} (max_in_flight_bytes)",
                reason="REQUEST_BYTES",
            )
        return MemoryBudgetExceeded(
            f"no room for this request of {size} bytes: {self.held} bytes of requests await their "
            f"answer, and {self._limit} may (max_in_flight_bytes)",
            reason="IN_FLIGHT_BYTES",
        )


class UnsentBytes:
    """Bytes of answers that gRPC has not sent yet, and of those whose turn has not come."""

    __slots__ = ("_given", "_limit", "_lock", "_queued", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Of answers that wait for those of earlier requests.
        self._queued = 0
        self._lock = threading.Lock()
        # Two numbers with one writer each: who answers, and the transport's thread.
        self._taken = 0
        self._given = 0

    @property
    def held(self) -> int:
        """Bytes that wait now."""
        return self._taken - self._given + self._queued

    @property
    def total(self) -> int:
        """Bytes in all so far."""
        return self._taken

    def take(self, size: int) -> bool:
        """Count an answer; False if there is no room. With a lock, always the same one, held.

        One alone always has room. Those that wait for their turn take none from it: they wait for
        answers like this one.
        """
        held = self._taken - self._given
        if held + size > self._limit and held:
            return False
        self._taken += size
        return True

    def give(self, size: int) -> None:
        """Count an answer no longer. The transport's thread only."""
        self._given += size

    def queue(self, size: int) -> bool:
        """Count an answer that waits for its turn; False if there is no room. Any thread."""
        with self._lock:
            held = self.held
            if held + size > self._limit and held:
                return False
            self._queued += size
            return True

    def unqueue(self, size: int) -> None:
        """Count what `queue` counted no longer: it is sent now, or never. Any thread."""
        with self._lock:
            self._queued -= size

    def refusal(self, size: int) -> MemoryBudgetExceeded:
        """Return the sentence for an answer that found no room."""
        return MemoryBudgetExceeded(
            f"no room for the answer of {size} bytes: {self.held} bytes of answers wait for their "
            f"turn, or for their callers to take them, and {self._limit} may (max_unsent_bytes)",
            reason="UNSENT_BYTES",
        )


class Unanswered:
    """The messages of one stream that await their answer. Receiving thread only.

    An answer counts for the oldest message, whichever it belongs to; so the bytes are
    exact when all are answered, and near enough before.
    """

    __slots__ = ("_in_flight", "_limit", "_over", "_sizes")

    def __init__(self, in_flight: InFlightBytes, limit: int) -> None:
        self._in_flight = in_flight
        self._limit = limit
        self._sizes: deque[int] = deque()
        self._over = False

    @property
    def full(self) -> bool:
        """True while no further message may be received."""
        return len(self._sizes) >= self._limit

    def received(self, size: int) -> bool:
        """Count a message; False if there is no room for its bytes."""
        if self._over:
            return True
        if not self._in_flight.take(size):
            return False
        self._sizes.append(size)
        return True

    def answered(self) -> None:
        """One answer left. More answers than messages earn no further messages."""
        if self._sizes:
            self._in_flight.put_back(self._sizes.popleft())

    def over(self) -> None:
        """The stream is over, and so is the wait for its answers."""
        self._over = True
        self._in_flight.put_back(sum(self._sizes))
        self._sizes.clear()


@dataclass(frozen=True, slots=True)
class ByteBounds:
    """What the calls of one transport share."""

    requests: InFlightBytes
    answers: UnsentBytes
    compression: Compression

    def traffic(self) -> tuple[int, int]:
        """Return the bytes of requests and answers in all so far, and those that are here now."""
        total = self.requests.total + self.answers.total
        return total, self.requests.held + self.answers.held

    def gauges(self) -> Mapping[str, float]:
        """Return what is held, by the names of its metrics."""
        return {
            "inferd_request_bytes_held": self.requests.held,
            "inferd_answer_bytes_unsent": self.answers.held,
        }


def bounds_of(options: TransportOptions) -> ByteBounds:
    """Return the bounds of one transport, with nothing counted."""
    return ByteBounds(
        InFlightBytes(options.max_in_flight_bytes),
        UnsentBytes(options.max_unsent_bytes),
        Compression(
            options.accept_compressed, options.max_message_bytes, options.max_compression_ratio
        ),
    )
