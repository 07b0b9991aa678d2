"""Lets callers do what their identity may, and not too much of it at a time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from inferd_server.errors import InferdError, PermissionDenied, Unauthenticated
from inferd_server.security.access import Refused
from inferd_server.security.counted import Counted, Discreet, nothing
from inferd_server.security.identity import (
    Identities,
    Identity,
    bearer_token,
    identify,
    unknown_caller,
)
from inferd_server.security.limits import CallerLimits
from inferd_server.security.permissions import METHODS, Permission, grant_for
from inferd_server.transport.call import Authorize, Call, Caller, UnaryHandler


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
        limits: CallerLimits,
        refused: Refused,
    ) -> None:
        """Prepare.

        Args:
            identities: returns those of now.
            anonymous: who calls without an identity.
            limits: counts the requests of every caller.
            refused: told of every call that is refused here.
        """
        self._identities = identities
        self._anonymous = anonymous
        self._limits = limits
        self._refused = refused

    def authorize(self, method: str) -> Authorize | None:
        """Return what lets those call a method who may."""
        if METHODS.get(method) is Permission.OPEN:
            return None
        return partial(self._authorize, method)

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        """Return a handler that lets through who may call the method, as often as it may.

        Asked again of each call, since the messages of a stream are calls, too: a stream may
        outlive a permission.
        """
        if METHODS.get(method) is Permission.OPEN:
            return handler
        return partial(self._call, method, handler)

    def name(self, caller: Caller) -> str:
        """Return the name of a caller's identity; empty for who has none, or none any more."""
        who = self._identify(caller)
        return who.name if isinstance(who, Identity) else ""

    def _authorize(self, method: str, caller: Caller) -> InferdError | None:
        who = self._identify(caller)
        if not isinstance(who, Identity):
            return self._refuse(method, caller, who)
        error = permitted(who, method, tuple(caller.certificate_names))
        return None if error is None else self._refuse(method, caller, error)

    def _call(self, method: str, handler: UnaryHandler, call: Call) -> None:
        who = self._identify(call)
        if not isinstance(who, Identity):
            call.fail(self._refuse(method, call, who))
            return
        names = tuple(call.certificate_names)
        error = permitted(who, method, names) or self._limits.enter(who)
        if error is None:
            self._count(who, handler, call)
        else:
            call.fail(self._refuse(method, call, error))

    def _count(self, who: Identity, handler: UnaryHandler, call: Call) -> None:
        """Handle a call, which counts as in flight until it is answered if that has a bound."""
        bounded, reads = who.max_in_flight is not None, Permission.READ in who.permissions
        if reads and not bounded:
            handler(call)
            return
        over = (lambda _: self._limits.leave(who)) if bounded else nothing
        counted = Counted(call, over) if reads else Discreet(call, over)
        try:
            handler(counted)
        except BaseException:
            # The transport answers what a handler raises, and would not tell.
            counted.over()
            raise

    def _identify(self, caller: Caller) -> Identity | Unauthenticated:
        token, names = bearer_token(caller.metadata), tuple(caller.certificate_names)
        return identify(self._identities(), self._anonymous, token, names)

    def _refuse(self, method: str, caller: Caller, error: InferdError) -> InferdError:
        self._refused(method, caller, error)
        return error
