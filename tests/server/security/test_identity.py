"""Who calls, and whether it may: pure decisions."""

from __future__ import annotations

import hashlib

import pytest
from inferd_server.errors import PermissionDenied, Unauthenticated
from inferd_server.security.guard import permitted
from inferd_server.security.identity import Identities, Identity, bearer_token, identify
from inferd_server.security.permissions import METHODS, Permission, covered

INFER = "/inference.GRPCInferenceService/ModelInfer"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"
CHECK = "/grpc.health.v1.Health/Check"

READER = Identity("reader", covered(["read"]))
CALLER = Identity("caller", covered(["infer"]))
SERVICE = Identity("service", covered(["infer"]))
NOBODY = Identity("", frozenset())
KNOWN = Identities(
    {hashlib.sha256(text.encode()).digest(): who for text, who in (("r", READER), ("c", CALLER))},
    {"service.internal": SERVICE},
)


@pytest.mark.parametrize(
    ("metadata", "token"),
    [
        ((), None),
        ((("authorization", "Bearer abc"),), "abc"),
        ((("authorization", "bearer  abc "),), "abc"),
        ((("authorization", "Basic abc"),), None),
        ((("authorization", "Bearer"),), ""),
        ((("authorization", "Bearer "),), ""),
        ((("authorization", "Bearer \t "),), ""),
        ((("x", "y"), ("authorization", "BEARER a b")), "a b"),
        ((("authorization-bin", b"Bearer abc"),), None),
        ((("authorization", "Bearer first"), ("authorization", "Bearer second")), "first"),
    ],
)
def test_a_token_is_what_follows_bearer(
    metadata: tuple[tuple[str, str | bytes], ...], token: str | None
) -> None:
    assert bearer_token(metadata) == token


@pytest.mark.parametrize(
    ("token", "names", "who"),
    [
        ("r", (), READER),
        ("c", (), CALLER),
        ("c", ("service.internal",), CALLER),
        (None, ("other", "service.internal"), SERVICE),
        (None, ("other",), NOBODY),
        (None, (), NOBODY),
    ],
)
def test_a_token_counts_before_a_certificate(
    token: str | None, names: tuple[str, ...], who: Identity
) -> None:
    assert identify(KNOWN, NOBODY, token, names) is who


@pytest.mark.parametrize("token", ["R", "rr", "\udcff", "service.internal"])
def test_a_token_of_nobody_is_refused_whatever_the_certificate(token: str) -> None:
    refusal = identify(KNOWN, NOBODY, token, ("service.internal",))
    assert isinstance(refusal, Unauthenticated)
    assert refusal.reason == "TOKEN_UNKNOWN"


def test_an_empty_token_is_refused_even_if_somebody_has_its_hash() -> None:
    known = Identities({hashlib.sha256(b"").digest(): READER})
    refusal = identify(known, NOBODY, "", ("service.internal",))
    assert isinstance(refusal, Unauthenticated)
    assert refusal.reason == "TOKEN_EMPTY"
    assert "may be empty" in str(refusal)


def test_each_permission_opens_its_methods_and_no_others() -> None:
    for grant in ("infer", "read", "feedback", "admin"):
        who = Identity("x", covered([grant]))
        opened = {method for method in METHODS if permitted(who, method) is None}
        assert opened == {
            method for method, need in METHODS.items() if need in {*covered([grant]), "open"}
        }


def test_health_is_open_to_everybody() -> None:
    assert permitted(NOBODY, CHECK) is None


def test_an_identity_is_told_which_permission_it_lacks() -> None:
    error = permitted(CALLER, LOAD)
    assert isinstance(error, PermissionDenied)
    assert str(error) == f"'caller' may not call {LOAD}; that takes the permission 'admin'"
    assert error.reason == "PERMISSION_MISSING"
    assert error.facts == {"identity": "caller", "permission": "admin"}


def test_a_caller_without_an_identity_is_told_how_to_show_one() -> None:
    error = permitted(NOBODY, INFER)
    assert isinstance(error, Unauthenticated)
    assert error.reason == "CREDENTIALS_MISSING"
    assert "authorization: Bearer" in str(error)


def test_a_certificate_that_nobody_named_is_shown_in_the_refusal() -> None:
    error = permitted(NOBODY, INFER, ("a", "b", "c", "d"))
    assert isinstance(error, Unauthenticated)
    assert error.reason == "CERTIFICATE_UNKNOWN"
    assert "('a', 'b', 'c')" in str(error)


def test_a_method_that_has_no_permission_is_open_to_nobody() -> None:
    error = permitted(Identity("all", frozenset(Permission)), "/new.Service/Method")
    assert isinstance(error, PermissionDenied)
    assert error.reason == "METHOD_CLOSED"
