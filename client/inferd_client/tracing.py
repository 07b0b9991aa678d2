"""The caller's trace, which goes on in the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence

TRACE, STATE = "traceparent", "tracestate"
LIBRARY = "opentelemetry.trace"


def with_trace(
    metadata: Sequence[tuple[str, str | bytes]],
) -> Sequence[tuple[str, str | bytes]]:
    """Return metadata with the span that the caller is in, as W3C Trace Context writes it.

    Unchanged where it has a traceparent already, where there is no span, and where the program
    does not use OpenTelemetry, which is not imported for this.
    """
    library = sys.modules.get(LIBRARY)
    if library is None or any(key == TRACE for key, _ in metadata):
        return metadata
    context = library.get_current_span().get_span_context()
    if not context.is_valid:
        return metadata
    trace = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state.to_header()
    return (*metadata, (TRACE, trace), *(((STATE, state),) if state else ()))
