"""The trace that a request belongs to, as W3C Trace Context writes it in metadata."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from inferd_server.monitoring.chance import Draw

TRACE, STATE = "traceparent", "tracestate"
# Version, trace, span and flags. Source: W3C Trace Context.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
SAMPLED = 1
MOST_STATE = 512
"""Characters of a tracestate that are passed on."""
TRACE_BYTES, SPAN_BYTES = 16, 8


class TraceContext(NamedTuple):
    """A span that is recorded; ids are bytes, 16 of a trace and 8 of a span."""

    trace: bytes
    span: bytes
    parent: bytes = b""
    """The caller's span; empty: there is none."""
    state: str = ""
    """The caller's tracestate."""

    @property
    def header(self) -> str:
        """Its traceparent."""
        return f"00-{self.trace.hex()}-{self.span.hex()}-0{SAMPLED}"


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
    metadata: Iterable[tuple[str, str | bytes]], chosen: Callable[[], bool], draw: Draw
) -> TraceContext | None:
    """Decide whether a call is traced, and return its context if it is.

    The caller's decision counts; without a traceparent that can be read, chance decides.

    Args:
        metadata: of the call.
        chosen: whether the next call that chance decides on is traced.
        draw: makes random numbers.
    """
    found = parent_of(metadata)
    if found is None:
        if not chosen():
            return None
        return TraceContext(new_id(TRACE_BYTES, draw), new_id(SPAN_BYTES, draw))
    if not int(found[3], 16) & SAMPLED:
        return None
    state = ",".join(text for key, text in metadata if key == STATE and isinstance(text, str))
    kept = state if len(state) <= MOST_STATE else ""
    ours = new_id(SPAN_BYTES, draw)
    return TraceContext(bytes.fromhex(found[1]), ours, bytes.fromhex(found[2]), kept)


def new_id(size: int, draw: Draw) -> bytes:
    """Return a random id of so many bytes, which is never zero."""
    return (draw(8 * size) or 1).to_bytes(size)
