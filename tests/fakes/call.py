"""Doubles for a transport's calls and streams: who calls is made up, what is answered is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inferd.tensors import Buffer
from inferd_server.errors import InferdError
from inferd_server.transport.call import Metadata
from inferd_server.transport.in_flight import UnsentBytes


class FakeContext:
    """A caller."""

    def __init__(
        self, token: str | None = None, names: Sequence[str] = (), *, scheme: str = "Bearer"
    ) -> None:
        self.metadata: Metadata = (
            ("a-key", "x"),
            *(() if token is None else (("authorization", f"{scheme} {token}"),)),
        )
        self.certificate_names = names
        self.peer = "ipv4:127.0.0.1:1"
        self.deadline: float | None = None
        self.cancelled = False
        self.errors: list[InferdError] = []

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Do nothing."""

    def fail(self, error: InferdError) -> None:
        """Keep the error."""
        self.errors.append(error)

    @property
    def reasons(self) -> list[str]:
        """Of the errors."""
        return [error.reason for error in self.errors]


class FakeCall(FakeContext):
    """A unary call."""

    request = b"request"
    stream = None

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.replies: list[bytes] = []

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Do nothing."""

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Keep the answer."""
        self.replies.append(b"".join(parts))


class FakeStream(FakeContext):
    """A stream."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.sent: list[bytes] = []
        self.unsent = UnsentBytes(1 << 20)

    def send(self, parts: Sequence[Buffer]) -> None:
        """Keep the message."""
        self.sent.append(b"".join(parts))

    def finish(self, trailing: Metadata = ()) -> None:
        """Do nothing."""
