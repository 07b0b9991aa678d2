"""The check in front of the handlers: who may call what; none where all is allowed."""

from __future__ import annotations

from typing import Protocol

from inferd_server.errors import InferdError, PermissionDenied
from inferd_server.security.counted import Discreet, nothing
from inferd_server.security.permissions import METHODS, Permission
from inferd_server.transport.call import Authorize, Caller, UnaryHandler


class Refused(Protocol):
    """Is told of every call that is refused for who calls, or how often."""

    def __call__(self, method: str, caller: Caller, error: InferdError) -> None:
        """Count it."""


class Access(Protocol):
    """Decides who may call what."""

    def authorize(self, method: str) -> Authorize | None:
        """Return what decides on a method's calls before their messages; None: all may call."""

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return the handler of a method's calls, or of the messages of its streams."""

    def name(self, caller: Caller) -> str:
        """Return the name of a caller's identity; empty for who has none."""


class Fixed:
    """The same for every caller: a method is open to all of them or closed."""

    def __init__(
        self,
        permissions: frozenset[Permission],
        refused: Refused = lambda _method, _caller, _error: None,
    ) -> None:
        """Open what takes these permissions; `refused` is told of calls of the rest."""
        self._permissions = permissions | {Permission.OPEN}
        self._refused = refused

    def authorize(self, method: str) -> Authorize | None:
        """Return None for an open method, and what refuses for a closed one."""
        if METHODS.get(method) in self._permissions:
            return None
        return lambda caller: self._refuse(method, caller)

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return the handler itself; where nobody may read, one that tells no names of models."""
        if METHODS.get(method) is not Permission.INFER or Permission.READ in self._permissions:
            return handler
        return lambda call: handler(Discreet(call, nothing))

    def name(self, caller: Caller) -> str:  # noqa: ARG002
        """Return nothing: callers have no names."""
        return ""

    def _refuse(self, method: str, caller: Caller) -> InferdError:
        error = PermissionDenied(
            f"{method} is closed to callers that this server cannot tell apart: an "
            "identities_file names some, or anonymous_permissions opens it to all",
            reason="METHOD_CLOSED",
        )
        self._refused(method, caller, error)
        return error
