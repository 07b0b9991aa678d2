"""How many bytes of requests are here without an answer, and the bound on them.

The allocator keeps what large messages once took (environment.py), so that this bounds
what it can keep, too. Messages that gRPC is still receiving are not counted.
"""

from __future__ import annotations

from collections import deque

from inferd_server.errors import MemoryBudgetExceeded


class InFlightBytes:
    """A count without a lock of its own: what each method may rely on is said there."""

    __slots__ = ("_given", "_limit", "_taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Two numbers with one writer each, so that taking needs no lock.
        self._taken = 0
        self._given = 0

    @property
    def held(self) -> int:
        """Bytes in flight now."""
        return self._taken - self._given

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

    def refusal(self, size: int) -> MemoryBudgetExceeded:
        """Return the sentence for a request that found no room."""
        return MemoryBudgetExceeded(
            f"no room for this request of {size} bytes: {self.held} bytes of requests await their "
            f"answer, and {self._limit} may (max_in_flight_bytes)"
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
