"""A double for calls: cancelled when a test says so, and it remembers what it was answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.tensors import Buffer
from inferd_server.errors import InferdError
from inferd_server.transport.call import Metadata


class FakeCall:
    """One call; later answers are remembered, too, though a real one ignores them."""

    metadata: Metadata = ()
    peer = "test"
    stream = None

    def __init__(self, request: bytes = b"", deadline: float | None = None) -> None:
        self.request = request
        self.deadline = deadline
        self.cancelled = False
        self.answers: list[bytes | InferdError] = []
        self.trailing: Metadata = ()
        self.unsendable = False
        """True: no reply can be sent."""
        self._callback: Callable[[], None] | None = None

    @property
    def answer(self) -> bytes | InferdError:
        """The only one."""
        (answer,) = self.answers
        return answer

    def cancel(self) -> None:
        """Go away."""
        self.cancelled = True
        if self._callback is not None:
            self._callback()

    def on_cancel(self, callback: Callable[[], None]) -> None:
        self._callback = callback
        if self.cancelled:
            callback()

    def send_initial_metadata(self, metadata: Metadata) -> None:
        raise AssertionError("nobody sends any")

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        if self.unsendable:
            raise MemoryError
        self.answers.append(b"".join(parts))
        self.trailing = trailing

    def fail(self, error: InferdError) -> None:
        self.answers.append(error)
