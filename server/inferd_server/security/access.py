"""Puts what a caller may do in front of the handlers, once; where all is allowed, nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inferd_server.errors import InferdError, PermissionDenied
from inferd_server.security.permissions import METHODS, Permission
from inferd_server.transport.call import Receiver, Stream, StreamHandler, UnaryHandler


class Access(Protocol):
    """Returns the handlers to serve in the place of others."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return the handler of a method's calls, or of the messages of its streams."""

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """Return the handler of a method's streams."""


class Fixed:
    """The same for every caller: a method is open to all of them or closed."""

    def __init__(self, permissions: frozenset[Permission]) -> None:
        self._permissions = permissions | {Permission.OPEN}

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return the handler itself, or one that refuses."""
        error = self._closed(method)
        return handler if error is None else lambda call: call.fail(error())

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """Return the handler itself, or one that refuses."""
        error = self._closed(method)
        return handler if error is None else lambda stream: refuse(stream, error())

    def _closed(self, method: str) -> Callable[[], InferdError] | None:
        if METHODS.get(method) in self._permissions:
            return None
        # A new one each time: an error that is raised remembers where.
        return lambda: PermissionDenied(
            f"{method} is closed to callers that this server cannot tell apart: an "
            "identities_file names some, or anonymous_permissions opens it to all",
            reason="METHOD_CLOSED",
        )


class Refused:
    """What receives the messages of a stream that was refused: nothing."""

    def message(self, data: bytes) -> None:
        """Pass it over."""

    def half_closed(self) -> None:
        """Do nothing."""

    def drain(self) -> None:
        """Do nothing: the stream has ended."""

    def cancel(self) -> None:
        """Nothing is held."""


def refuse(stream: Stream, error: InferdError) -> Receiver:
    """End a stream before its first message."""
    stream.fail(error)
    return Refused()
