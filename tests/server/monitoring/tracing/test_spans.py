"""The spans that are made of what was noted of a request."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_server.monitoring.phases import Execution, Phases
from inferd_server.monitoring.tracing.context import TraceContext
from inferd_server.monitoring.tracing.spans import (
    Batches,
    LostAttempt,
    RanRequest,
    RequestTrace,
    Span,
    spans_of,
)

TRACE, CALLER = bytes(range(16)), bytes(range(8))
RUN = Execution(rows=4, waited=0.25, gather=0.0, compute=0.5)
TIMES = st.floats(0.0, 100.0)


def traced(
    queue: float = 0.5, run: Execution | None = RUN, lost: tuple[LostAttempt, ...] = ()
) -> RequestTrace:
    """Return a request that came at 10, waited from 11 on, and was answered at 15."""
    context = TraceContext(TRACE, random.randbytes(8), CALLER)
    found = RequestTrace(context, "ModelInfer", "m", began=10.0, lost=list(lost), ended=15.0)
    if run is not None:
        found.ran = RanRequest("1", 2, 11.0, Phases(queue, run))
    return found


def spans(request: RequestTrace, batches: Batches | None = None) -> list[Span]:
    draw = random.Random(1).getrandbits
    return list(spans_of(request, batches or Batches(draw), draw))


def test_a_request_is_told_from_its_caller_to_its_reply() -> None:
    root, *below = spans(traced())
    assert (root.name, root.trace, root.parent) == (
        "inference.GRPCInferenceService/ModelInfer", TRACE, CALLER,
    )  # fmt: skip
    names = {one.span: one.name for one in (root, *below)}
    assert [(one.name, names[one.parent], one.begin, one.end) for one in below] == [
        ("decode", root.name, 10.0, 11.0),
        ("attempt", root.name, 11.0, 12.0),
        ("queue", "attempt", 11.0, 11.25),
        ("batch_wait", "attempt", 11.25, 11.5),
        ("compute", "attempt", 11.5, 12.0),
        ("reply", root.name, 12.0, 15.0),
    ]
    assert {one.trace for one in below} == {TRACE}
    assert dict(root.attributes)["inferd.model"] == "m"
    assert dict(root.attributes)["rpc.response.status_code"] == "OK"
    assert root.error is None


@given(TIMES, TIMES, TIMES, TIMES)
def test_the_spans_below_an_attempt_fill_it(
    queue: float, wait: float, gather: float, compute: float
) -> None:
    found = spans(traced(queue, Execution(1, wait, gather, compute)))
    attempt = next(one for one in found if one.name == "attempt")
    parts = [one for one in found if one.parent == attempt.span]
    ends = [attempt.begin, *(one.end for one in parts)]
    assert [one.begin for one in parts] == pytest.approx(ends[:-1])
    assert ends[-1] == attempt.end


def test_an_attempt_that_a_worker_took_with_it_is_beside_the_next_one() -> None:
    lost = (LostAttempt(11.0, 12.0, "killed", began=True), LostAttempt(12.0, 13.0, "again", False))
    found = spans(traced(queue=3.0, lost=lost))
    attempts = [one for one in found if one.name == "attempt"]
    assert [(one.begin, one.end, one.error) for one in attempts] == [
        (11.0, 12.0, "killed"), (12.0, 13.0, "again"), (13.0, 14.5, None),
    ]  # fmt: skip
    assert {one.parent for one in attempts} == {found[0].span}
    assert [dict(one.attributes)["inferd.attempt"] for one in attempts] == [1, 2, 3]
    # What is below the last one begins with it, though the request waited before.
    assert min(one.begin for one in found if one.parent == attempts[2].span) == 13.0


@pytest.mark.parametrize(
    ("code", "failed"),
    [("OK", False), ("INVALID_ARGUMENT", False), ("UNAVAILABLE", True), ("INTERNAL", True)],
)
def test_a_call_failed_where_the_server_is_to_blame(code: str, failed: bool) -> None:
    request = traced(run=None)
    request.code, request.text = code, "why"
    (root,) = spans(request)
    assert (root.error == "why") is failed
    assert dict(root.attributes)["error.message"] == "why"


def test_a_request_that_never_ran_again_shows_what_was_lost() -> None:
    request = traced(run=None, lost=(LostAttempt(11.0, 12.0, "killed", began=False),))
    assert [one.name for one in spans(request)][1:] == ["decode", "attempt"]


def test_one_batch_is_told_of_all_who_shared_it_however_their_times_were_rounded() -> None:
    batches = Batches(random.Random(2).getrandbits)
    other = replace(RUN)
    first, second, apart = traced(0.5), traced(0.5 + 1e-9, other), traced(0.75)
    links = []
    for request in (first, second, apart):
        compute = next(one for one in spans(request, batches) if one.name == "compute")
        links.append(compute.links)
    assert links[0] == links[1] != links[2]
    assert batches.over() == []
    # The next time all of their requests have come.
    shared, alone = (one.told() for one in batches.over())
    assert ((shared.trace, shared.span),) == links[0]
    assert [span for _, span in shared.links] == [first.context.span, second.context.span]
    assert [span for _, span in alone.links] == [apart.context.span]
    assert (shared.begin, shared.end, dict(shared.attributes)["inferd.rows"]) == (11.5, 12.0, 4)
    assert batches.over() == []
