"""The trace that a request belongs to, as W3C Trace Context writes it in metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

TRACE, STATE = "traceparent", "tracestate"
# Version, trace, span and flags. Source: W3C Trace Context.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
SAMPLED = 1
MOST_STATE = 512
"""Characters of a tracestate that are passed on."""
SHARE_BITS = 53
"""Of a number that decides on a request: as many as a float holds."""
Draw = Callable[[int], int]
"""Returns a random number of so many bits."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span that is recorded; ids in hexadecimal digits."""

    trace: str
    span: str
    parent: str = ""
    """The caller's span; "": there is none."""
    state: str = ""
    """The caller's tracestate."""

    @property
    def header(self) -> str:
        """Its traceparent."""
        return f"00-{self.trace}-{self.span}-{SAMPLED:02x}"


def parent_of(metadata: Iterable[tuple[str, str | bytes]]) -> re.Match[str] | None:
    """Return the trace, the span and the flags of a caller's traceparent; None without one."""
    for key, value in metadata:
        if key == TRACE and isinstance(value, str):
            # Later versions may have more behind it.
            return TRACEPARENT.match(value)
    return None


def trace_of(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """Return the trace that a call belongs to, if it is kept somewhere; else ""."""
    found = parent_of(metadata)
    return found[1] if found is not None and int(found[3], 16) & SAMPLED else ""


def begin_trace(
    metadata: Iterable[tuple[str, str | bytes]], share: float, draw: Draw
) -> TraceContext | None:
    """Decide whether a call is traced, and return its context if it is.

    The caller's decision counts; without a traceparent that can be read, chance decides.

    Args:
        metadata: of the call.
        share: part of the calls without a traceparent that are traced.
        draw: makes random numbers.
    """
    found = parent_of(metadata)
    if found is None:
        if draw(SHARE_BITS) >= share * 2**SHARE_BITS:
            return None
        return TraceContext(new_id(128, draw), new_id(64, draw))
    if not int(found[3], 16) & SAMPLED:
        return None
    states = [value for key, value in metadata if key == STATE and isinstance(value, str)]
    state = ",".join(states)
    kept = state if len(state) <= MOST_STATE else ""
    return TraceContext(found[1], new_id(64, draw), found[2], kept)


def new_id(bits: int, draw: Draw) -> str:
    """Return a random id of so many bits, which is never zero."""
    return f"{draw(bits) or 1:0{bits // 4}x}"
