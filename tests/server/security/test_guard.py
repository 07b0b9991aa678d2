"""What stands before the handlers lets calls through, refuses them, and counts them."""

from __future__ import annotations

import pytest
from inferd_server.errors import (
    InferdError,
    InvalidInput,
    ModelNotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
)
from inferd_server.rpc.routes import OPEN_TO_ALL
from inferd_server.security.access import Fixed
from inferd_server.security.guard import Guard
from inferd_server.security.identity import Identities, Identity
from inferd_server.security.limits import CallerLimits
from inferd_server.security.permissions import METHODS, Permission, covered
from inferd_server.transport.call import Call, Caller

from tests.fakes.call import FakeCall, FakeStream
from tests.fakes.clock import FakeClock
from tests.server.security.named import digest

INFER = "/inference.GRPCInferenceService/ModelInfer"
READY = "/inference.GRPCInferenceService/ServerReady"
REGISTER = "/inference.GRPCInferenceService/SystemSharedMemoryRegister"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"


def echo(call: Call) -> None:
    call.reply((call.request,))


class Holding:
    """A handler that keeps what it gets."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def call(self, call: Call) -> None:
        self.calls.append(call)


class Callers:
    """A guard, and identities that the test may change."""

    def __init__(self, *identities: Identity, anonymous: tuple[str, ...] = ()) -> None:
        self.tell(*identities)
        self.clock = FakeClock()
        self.refused: list[InferdError] = []
        nobody = Identity("", covered(anonymous))
        self.guard = Guard(lambda: self.known, nobody, CallerLimits(self.clock), self.told)

    def told(self, method: str, caller: Caller, error: InferdError) -> None:
        self.refused.append(error)

    def tell(self, *identities: Identity) -> None:
        self.known = Identities(
            {bytes.fromhex(digest(who.name)): who for who in identities},
            {f"{who.name}.internal": who for who in identities},
        )


def inferring(**limits: float) -> Identity:
    return Identity("a", covered(["infer"]), **limits)  # type: ignore[arg-type]


def test_a_call_of_an_identity_that_may_reaches_its_handler_as_it_is() -> None:
    holding = Holding()
    handler = Callers(Identity("a", covered(["infer", "read"]))).guard.unary(INFER, holding.call)
    calls = [FakeCall("a"), FakeCall(names=("a.internal",))]
    for call in calls:
        handler(call)
    assert holding.calls == calls


@pytest.mark.parametrize(
    ("call", "method", "kind", "reason"),
    [
        (FakeCall(), INFER, Unauthenticated, "CREDENTIALS_MISSING"),
        (FakeCall("b"), INFER, Unauthenticated, "TOKEN_UNKNOWN"),
        (FakeCall("a", scheme="Basic"), INFER, Unauthenticated, "CREDENTIALS_MISSING"),
        (FakeCall(names=("b",)), INFER, Unauthenticated, "CERTIFICATE_UNKNOWN"),
        (FakeCall("a"), READY, PermissionDenied, "PERMISSION_MISSING"),
        (FakeCall("a"), REGISTER, PermissionDenied, "PERMISSION_MISSING"),
        (FakeCall("a"), "/new.Service/Method", PermissionDenied, "METHOD_CLOSED"),
    ],
)
def test_others_are_refused_before_their_handler(
    call: FakeCall, method: str, kind: type[InferdError], reason: str
) -> None:
    holding = Holding()
    callers = Callers(inferring())
    callers.guard.unary(method, holding.call)(call)
    (error,) = call.errors
    assert (type(error), error.reason) == (kind, reason)
    assert holding.calls == []
    assert callers.refused == [error]
    decide = callers.guard.authorize(method)
    assert decide is not None
    refusal = decide(call)
    assert refusal is not None
    assert (type(refusal), refusal.reason) == (kind, reason)
    assert callers.refused == [error, refusal]


def test_who_may_call_is_let_through_before_any_message() -> None:
    callers = Callers(inferring())
    for method in (INFER, STREAM):
        decide = callers.guard.authorize(method)
        assert decide is not None
        assert decide(FakeStream("a")) is None
        assert decide(FakeStream(names=("a.internal",))) is None
    assert callers.refused == []


def test_callers_are_called_by_the_name_of_their_identity() -> None:
    guard = Callers(inferring()).guard
    assert [guard.name(FakeCall(token)) for token in ("a", "wrong", None)] == ["a", "", ""]


def test_what_is_open_is_not_even_wrapped() -> None:
    guard = Callers().guard
    assert guard.unary(CHECK, echo) is echo
    assert guard.authorize(CHECK) is guard.authorize(WATCH) is None


def test_callers_without_an_identity_may_do_what_the_operator_says() -> None:
    holding = Holding()
    callers = Callers(inferring(), anonymous=("read",))
    call, other = FakeCall(), FakeCall()
    callers.guard.unary(READY, holding.call)(call)
    callers.guard.unary(INFER, holding.call)(other)
    assert holding.calls == [call]
    assert other.reasons == ["CREDENTIALS_MISSING"]


def test_a_permission_that_is_taken_away_counts_for_the_next_call() -> None:
    callers = Callers(inferring())
    handler = callers.guard.unary(INFER, echo)
    before, after = FakeCall("a"), FakeCall("a")
    handler(before)
    callers.tell()
    handler(after)
    assert before.replies == [b"request"]
    assert after.reasons == ["TOKEN_UNKNOWN"]


def test_requests_above_the_rate_are_exhausted() -> None:
    callers = Callers(inferring(requests_per_second=2))
    handler = callers.guard.unary(INFER, echo)
    calls = [FakeCall("a") for _ in range(3)]
    for call in calls:
        handler(call)
    assert [len(call.replies) for call in calls] == [1, 1, 0]
    (error,) = calls[2].errors
    assert isinstance(error, ResourceExhausted)
    assert (error.reason, error.retry_after) == ("RATE_LIMIT", 0.5)
    assert callers.refused == [error]


@pytest.mark.parametrize("answer", ["reply", "fail", "raise"])
def test_a_request_is_in_flight_until_it_is_answered_however_that_is(answer: str) -> None:
    holding = Holding()
    callers = Callers(inferring(max_in_flight=1))
    handler = callers.guard.unary(INFER, holding.call)
    handler(FakeCall("a"))
    second = FakeCall("a")
    handler(second)
    assert second.reasons == ["IN_FLIGHT_LIMIT"]
    (held,) = holding.calls
    if answer == "reply":
        held.reply((b"",))
        # The first answer counts, and so does only its end.
        held.fail(InferdError())
    elif answer == "fail":
        held.fail(InferdError())
    else:
        held.fail(InferdError())
        with pytest.raises(ZeroDivisionError):
            callers.guard.unary(INFER, lambda _: 1 // 0)(FakeCall("a"))  # type: ignore[arg-type, return-value]
    handler(FakeCall("a"))
    assert len(holding.calls) == 2
    third = FakeCall("a")
    handler(third)
    assert third.reasons == ["IN_FLIGHT_LIMIT"]


def test_a_counted_call_is_the_call_in_everything() -> None:
    holding = Holding()
    Callers(inferring(max_in_flight=1)).guard.unary(INFER, holding.call)(call := FakeCall("a"))
    (counted,) = holding.calls
    assert counted is not call
    for name in ("request", "metadata", "peer", "certificate_names", "deadline", "cancelled"):
        assert getattr(counted, name) == getattr(call, name)
    counted.on_cancel(lambda: None)
    counted.send_initial_metadata(())
    counted.reply((b"an", b"swer"))
    assert call.replies == [b"answer"]


@pytest.mark.parametrize("grants", [("infer",), ("infer", "read")])
@pytest.mark.parametrize("limits", [{}, {"max_in_flight": 1}])
def test_names_of_other_models_are_told_to_those_who_may_read(
    grants: tuple[str, ...], limits: dict[str, int]
) -> None:
    def unknown(call: Call) -> None:
        call.fail(ModelNotFound("model 'x' is not known; known are a, b", facts={"model": "x"}))

    who = Identity("a", covered(grants), **limits)
    told = "model 'x' is not known" + ("; known are a, b" if "read" in grants else "")
    guarded = Callers(who).guard.unary(INFER, unknown)
    fixed = Fixed(covered(grants)).unary(INFER, unknown)
    for handler in (guarded, fixed, guarded):
        handler(call := FakeCall("a"))
        (error,) = call.errors
        assert (type(error), str(error)) == (ModelNotFound, told)


def test_other_errors_are_told_to_all() -> None:
    def wrong(call: Call) -> None:
        call.fail(InvalidInput("no", facts={"model": "x"}))

    for handler in (
        Callers(inferring()).guard.unary(INFER, wrong),
        Fixed(covered(["infer"])).unary(INFER, wrong),
    ):
        handler(call := FakeCall("a"))
        assert [str(error) for error in call.errors] == ["no"]


def test_an_answer_that_cannot_be_sent_leaves_the_call_to_be_answered() -> None:
    class Fussy(FakeCall):
        def reply(self, parts: object, trailing: object = ()) -> None:
            raise ValueError("metadata")

    holding = Holding()
    callers = Callers(inferring(max_in_flight=1))
    handler = callers.guard.unary(INFER, holding.call)
    handler(call := Fussy("a"))
    with pytest.raises(ValueError, match="metadata"):
        holding.calls[0].reply((b"",))
    holding.calls[0].fail(InferdError())
    assert len(call.errors) == 1
    handler(FakeCall("a"))
    assert len(holding.calls) == 2


def test_what_is_the_same_for_all_costs_nothing_where_it_is_open() -> None:
    for method in METHODS:
        assert OPEN_TO_ALL.unary(method, echo) is echo
        assert OPEN_TO_ALL.authorize(method) is None


def test_what_is_the_same_for_all_is_refused_where_it_is_closed() -> None:
    told: list[tuple[str, str]] = []
    access = Fixed(covered(["infer"]), lambda method, _, error: told.append((method, error.reason)))
    assert access.authorize(INFER) is access.authorize(CHECK) is None
    for method in (REGISTER, "/new.Service/Method"):
        decide = access.authorize(method)
        assert decide is not None
        refusal = decide(FakeCall("a"))
        assert isinstance(refusal, PermissionDenied)
        assert "identities_file" in str(refusal)
        assert told.pop() == (method, "METHOD_CLOSED")
    assert access.name(FakeCall("a")) == ""
    assert METHODS[REGISTER] is Permission.ADMIN
