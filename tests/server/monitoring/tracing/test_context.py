"""Which requests are traced, and the trace that they belong to."""

from __future__ import annotations

import random

import pytest
from inferd_server.monitoring.chance import Chance
from inferd_server.monitoring.tracing.context import begin_trace, new_id, trace_of

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("value", "trace"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-03-what-comes", TRACE),
        (f"00-{TRACE}-{SPAN}-00", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f'00-"}}{TRACE[2:]}-{SPAN}-01', ""),
        ("", ""),
    ],
)
def test_only_a_trace_that_is_kept_somewhere_counts(value: str, trace: str) -> None:
    assert trace_of((("traceparent", value),)) == trace


def test_a_call_without_a_trace_has_none() -> None:
    assert trace_of((("user-agent", "x"),)) == trace_of(()) == ""
    assert trace_of((("traceparent", b"bytes"),)) == ""


@pytest.mark.parametrize("picked", [False, True])
def test_the_caller_decides_before_chance(picked: bool) -> None:
    draw = random.Random(0).getrandbits
    state = ("tracestate", "vendor=1")
    found = begin_trace((("traceparent", f"00-{TRACE}-{SPAN}-01"), state), lambda: picked, draw)
    assert found is not None
    assert (found.trace.hex(), found.parent.hex(), found.state) == (TRACE, SPAN, "vendor=1")
    assert found.header == f"00-{TRACE}-{found.span.hex()}-01"
    assert (
        begin_trace((("traceparent", f"00-{TRACE}-{SPAN}-00"), state), lambda: picked, draw) is None
    )


@pytest.mark.parametrize(("share", "least", "most"), [(0, 0, 0), (0.25, 200, 300), (1, 1000, 1000)])
def test_of_the_others_a_share_is_traced(share: float, least: int, most: int) -> None:
    draw = random.Random(0).getrandbits
    calls = [(("user-agent", "x"),), (("traceparent", "none that can be read"),)]
    chance = Chance(share, draw)
    found = [begin_trace(calls[place % 2], chance, draw) for place in range(1000)]
    traced = [one for one in found if one is not None]
    assert least <= len(traced) <= most
    assert len({one.trace for one in traced}) == len(traced)
    assert all(not one.parent and len(one.trace) == 16 for one in traced)


def test_an_id_is_never_zero() -> None:
    assert new_id(8, lambda _: 0) == bytes(7) + b"\1"
    assert new_id(16, lambda bits: 2**bits - 1) == b"\xff" * 16


def test_a_long_state_of_the_caller_is_not_passed_on() -> None:
    metadata = (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "a=" + "b" * 600))
    found = begin_trace(metadata, lambda: False, random.Random(0).getrandbits)
    assert found is not None
    assert found.state == ""
