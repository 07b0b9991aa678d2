"""Every method has a permission, and a method without one is open to nobody."""

from __future__ import annotations

from dataclasses import fields
from unittest.mock import MagicMock

import pytest
from inferd_server.rpc.routes import Services, health_routes, routes
from inferd_server.security.permissions import (
    GRANTS,
    METHODS,
    Permission,
    anonymous_grants,
    covered,
    grant_for,
)
from inferd_server.transport.call import Authorize, Caller, UnaryHandler


class Recording:
    """An access that remembers what it was asked about."""

    def __init__(self) -> None:
        self.decided: list[str] = []
        self.handled: list[str] = []

    def authorize(self, method: str) -> Authorize:
        self.decided.append(method)
        return lambda _: None

    def unary(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        self.handled.append(method)
        return handler

    def name(self, _: Caller) -> str:
        return ""


def test_every_route_has_a_permission_and_passes_through_access() -> None:
    access = Recording()
    table = routes(
        Services(*(MagicMock() for _ in fields(Services))),
        *(MagicMock() for _ in range(3)),
        None,
        access,
    )
    served = {*table.unary, *table.streams}
    assert served == set(METHODS)
    assert set(access.decided) == set(table.authorize) == served
    assert set(table.unary) <= set(access.handled)


def test_probes_get_methods_that_are_open() -> None:
    table = health_routes(MagicMock())
    assert {METHODS[path] for path in (*table.unary, *table.streams)} == {Permission.OPEN}
    assert {p for p, need in METHODS.items() if need is Permission.OPEN} == {
        *table.unary,
        *table.streams,
    }


def test_every_permission_but_the_open_one_can_be_granted() -> None:
    assert covered(GRANTS) == set(Permission) - {Permission.OPEN}
    assert covered(()) == frozenset()
    assert grant_for(Permission.CONTROL) == "admin"


@pytest.mark.parametrize(
    ("asked", "identities", "loopback", "granted"),
    [
        (("auto",), False, True, ("infer", "read", "feedback", "admin")),
        (("auto",), False, False, ("infer", "read")),
        (("auto",), True, True, ()),
        (("auto",), True, False, ()),
        ((), False, True, ()),
        (("infer",), True, False, ("infer",)),
        (("infer", "admin"), False, False, ("infer", "admin")),
    ],
)
def test_what_callers_without_an_identity_may_do(
    asked: tuple[str, ...], identities: bool, loopback: bool, granted: tuple[str, ...]
) -> None:
    assert anonymous_grants(asked, identities, loopback) == granted
