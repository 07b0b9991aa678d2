"""The caller's span of OpenTelemetry goes on in the server."""

from __future__ import annotations

import subprocess
import sys

import pytest
from inferd_client.connection import CallOptions
from inferd_client.tracing import LIBRARY

OPTIONS = CallOptions(1.0, (("x", "y"),), wait_for_ready=False)


def sent(*metadata: tuple[str, str]) -> dict[str, str]:
    return dict(OPTIONS.arguments(None, metadata)["metadata"])


def test_the_span_that_the_caller_is_in_is_sent() -> None:
    trace = pytest.importorskip(LIBRARY)
    assert sent() == {"x": "y"}
    context = trace.SpanContext(
        0x4BF92F3577B34DA6A3CE929D0E0E4736,
        0x00F067AA0BA902B7,
        is_remote=False,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        trace_state=trace.TraceState([("vendor", "1")]),
    )
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert sent() == {
            "x": "y",
            "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "tracestate": "vendor=1",
        }
        # Who brings one means it.
        assert sent(("traceparent", "own")) == {"x": "y", "traceparent": "own"}
    assert sent() == {"x": "y"}


def test_opentelemetry_is_not_imported_for_programs_without_it() -> None:
    code = f"import sys; from inferd_client import *; sys.exit({LIBRARY!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
