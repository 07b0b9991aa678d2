"""The transport interface: what the layers above know of a call.

A handler is a function of a call. Nothing above this package knows grpc.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from inferd.tensors import Buffer

from inferd_server.errors import InferdError
from inferd_server.transport.in_flight import ByteBounds, UnsentBytes

Metadata: TypeAlias = Sequence[tuple[str, str | bytes]]


class Caller(Protocol):
    """A caller, as far as the transport knows."""

    @property
    def metadata(self) -> Metadata:
        """Invocation metadata, in the order received."""

    @property
    def peer(self) -> str:
        """The caller's address as the transport writes it."""

    @property
    def certificate_names(self) -> Sequence[str]:
        """Names in the certificate that the caller showed and an authority vouched for.

        Subject alternative names, or the common name where there are none; () without one.
        """


class Context(Caller, Protocol):
    """What is known of a call before any message."""

    @property
    def deadline(self) -> float | None:
        """Monotonic seconds, or None for a call without a deadline."""

    @property
    def cancelled(self) -> bool:
        """True once the caller went away, or the transport gave the call up to stop."""


class Call(Context, Protocol):
    """One request and its one answer. Every method may be called from any thread."""

    @property
    def request(self) -> bytes:
        """The serialised request message."""

    @property
    def stream(self) -> object | None:
        """The stream that this is a message of; None for a call of its own."""

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call back once if the call is cancelled before its answer; at once if it was."""

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of the answer; ignored the second time, or after the answer.

        Raises:
            ValueError: it cannot be sent, see `metadata.checked`.
        """

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        """Answer with one message, the concatenation of `parts`. Later answers are ignored.

        Raises:
            ValueError: `trailing` cannot be sent; the call is still open.
        """

    def fail(self, error: InferdError) -> None:
        """Answer with a status. Later answers are ignored."""


class Stream(Context, Protocol):
    """A call of many requests and many answers. Every method may be called from any thread."""

    @property
    def unsent(self) -> UnsentBytes:
        """Where the bytes of its answers count, those too that wait to be sent in order."""

    def send_initial_metadata(self, metadata: Metadata) -> None:
        """Send metadata ahead of everything; ignored the second time, or after a message.

        Raises:
            ValueError: it cannot be sent, see `metadata.checked`.
        """

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send one message, the concatenation of `parts`; ignored once the call is over."""

    def finish(self, trailing: Metadata = ()) -> None:
        """End the call with OK after everything that was sent.

        Raises:
            ValueError: `trailing` cannot be sent; the call is still open.
        """

    def fail(self, error: InferdError) -> None:
        """End the call with a status after everything that was sent."""


class Receiver(Protocol):
    """What a stream's handler returns: where its messages go, on the transport's thread.

    The transport reads ahead of the answers by a bounded number of messages, so a
    receiver that answers each message once needs no bound of its own.
    """

    def message(self, data: bytes) -> None:
        """One request arrived."""

    def half_closed(self) -> None:
        """No more requests will come."""

    def drain(self) -> None:
        """The server is stopping: end the stream as soon as its requests are answered."""

    def cancel(self) -> None:
        """The call is over, whoever ended it. Comes once, as the last of all."""


# They run on the transport's thread and must not block; what they raise is answered EngineFailure.
UnaryHandler: TypeAlias = Callable[[Call], None]
StreamHandler: TypeAlias = Callable[[Stream], Receiver]
Authorize: TypeAlias = Callable[[Caller], InferdError | None]
"""Decides on a call before its messages are received; returns the refusal, or None. On the
transport's thread, and must not raise."""


Refused: TypeAlias = Callable[[Caller, InferdError], None]
"""Is told of an error that ends a call, or answers a message, before that is sent. Any thread."""


def ignore(_caller: Caller, _error: InferdError) -> None:
    """Take an error of which nobody wants to be told."""


def nobody(_method: str) -> Refused:
    """Return what is told of the errors of a method where nobody wants to be."""
    return ignore


@dataclass(frozen=True, slots=True)
class Routes:
    """Handlers by full method path, such as "/grpc.health.v1.Health/Check"."""

    unary: Mapping[str, UnaryHandler] = field(default_factory=dict)
    streams: Mapping[str, StreamHandler] = field(default_factory=dict)
    authorize: Mapping[str, Authorize] = field(default_factory=dict)
    """What decides on the calls of a method, where not all callers may make them."""
    refused: Callable[[str], Refused] = nobody
    """Returns what is told of every error of a method's calls that has a reason of its own."""


class Transport(Protocol):
    """Listens on one address and turns calls into handler calls."""

    name: str
    bounds: ByteBounds
    """What its calls hold."""

    def start(self, address: str, routes: Routes) -> int:
        """Listen on "host:port" and return the port.

        Raises:
            AddressInUse: the address cannot be bound.
        """

    def wake_by(self, descriptor: int) -> bool:
        """Do the work between events whenever an eventfd is written to; False if it cannot."""

    def stop(self, grace: float) -> None:
        """Refuse new calls, drain streams, give up what still runs after `grace` seconds.

        A call that reached its handler is answered by it, or UNAVAILABLE (ShuttingDown) after
        the grace. Callers that have heard of the end get UNAVAILABLE for new calls, from their
        own side; who has a call open hears of it before, or with, its answer. What others send
        between core's shutdown and that moment, one way over the network, no handler sees:
        core ends it, UNAVAILABLE or CANCELLED. Connections without a call are closed a second
        after the last call.

        Blocks until every call is over. A second call, from another thread, with a
        smaller grace ends the first one sooner; after that it does nothing.
        """
