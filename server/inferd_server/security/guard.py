"""Lets callers do what their identity may, and not too much of it at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from inferd_server.errors import InferdError, PermissionDenied
from inferd_server.security.access import refuse
from inferd_server.security.counted import Counted
from inferd_server.security.identity import (
    Identities,
    Identity,
    bearer_token,
    identify,
    unknown_caller,
)
from inferd_server.security.limits import Limits
from inferd_server.security.permissions import METHODS, Permission, grant_for
from inferd_server.transport.call import (
    Call,
    Context,
    Receiver,
    Stream,
    StreamHandler,
    UnaryHandler,
)

log = logging.getLogger(__name__)
CHANGES = frozenset({Permission.CONTROL, Permission.ADMIN})


def permitted(who: Identity, method: str, names: tuple[str, ...] = ()) -> InferdError | None:
    """Decide whether a caller may call a method; return the refusal, or None.

    Args:
        who: calls.
        method: its full path.
        names: those in the caller's certificate, for the sentence.
    """
    needed = METHODS.get(method)
    if needed is None:
        return PermissionDenied(f"{method} is open to nobody", reason="METHOD_CLOSED")
    if needed is Permission.OPEN or needed in who.permissions:
        return None
    if not who.name:
        return unknown_caller(names, needed)
    return PermissionDenied(
        f"{who.name!r} may not call {method}; that takes the permission {grant_for(needed)!r}",
        reason="PERMISSION_MISSING",
        facts={"identity": who.name, "permission": grant_for(needed)},
    )


class Guard:
    """Stands before every handler. Handlers are called on the transport's thread."""

    def __init__(
        self,
        identities: Callable[[], Identities],
        anonymous: Identity,
        limits: Limits,
        refused: Callable[[InferdError], None],
    ) -> None:
        """Prepare.

        Args:
            identities: returns those of now.
            anonymous: who calls without an identity.
            limits: counts the requests of every caller.
            refused: told of every request for inference that is refused here.
        """
        self._identities = identities
        self._anonymous = anonymous
        self._limits = limits
        self._refused = refused

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return a handler that lets through who may call the method, as often as it may."""
        if METHODS.get(method) is Permission.OPEN:
            return handler
        return partial(self._call, method, handler)

    def stream(self, method: str, handler: StreamHandler) -> StreamHandler:
        """Return a handler that lets through who may call the method."""
        if METHODS.get(method) is Permission.OPEN:
            return handler
        return partial(self._open, method, handler)

    def _call(self, method: str, handler: UnaryHandler, call: Call) -> None:
        try:
            who = self._admit(method, call)
            if (error := self._limits.enter(who)) is not None:
                raise error
        except InferdError as error:
            self._count(method, error)
            call.fail(error)
            return
        if who.max_in_flight is None:
            handler(call)
            return
        counted = Counted(call, partial(self._limits.leave, who))
        try:
            handler(counted)
        except BaseException:
            # The transport answers what a handler raises, and would not tell.
            counted.over()
            raise

    def _open(self, method: str, handler: StreamHandler, stream: Stream) -> Receiver:
        try:
            self._admit(method, stream)
        except InferdError as error:
            self._count(method, error)
            return refuse(stream, error)
        return handler(stream)

    def _admit(self, method: str, caller: Context) -> Identity:
        names = tuple(caller.certificate_names)
        who = identify(self._identities(), self._anonymous, bearer_token(caller.metadata), names)
        if (error := permitted(who, method, names)) is not None:
            raise error
        if METHODS[method] in CHANGES:
            log.info("admin call", extra={"identity": who.name, "method": method})
        return who

    def _count(self, method: str, error: InferdError) -> None:
        if METHODS.get(method) is Permission.INFER:
            self._refused(error)
