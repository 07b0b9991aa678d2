"""The messages of traces are those that the protocol's own classes write."""

from __future__ import annotations

import pytest
from inferd_server.monitoring.tracing.otlp import SpanEncoder
from inferd_server.monitoring.tracing.spans import Span
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2 as pb

TRACE, OWN, ABOVE = bytes(range(16)), bytes(range(20, 28)), bytes(range(30, 38))
OFFSET = 1_700_000_000 * 10**9
BARE = Span("decode", TRACE, OWN, b"", 2.0, 1.0)
FULL = Span(
    "é" * 200, TRACE, OWN, ABOVE, 1.5, 2.25, (("a", "x"), ("b", 7), ("c", True), ("d", -1)),
    ((TRACE, ABOVE), (TRACE[::-1], OWN)), "why\0ñ", True, "vendor=1",
)  # fmt: skip


def written(span: Span) -> pb.Span:
    """Return a span as the protocol's classes have it."""
    kind = pb.Span.SPAN_KIND_SERVER if span.serves else pb.Span.SPAN_KIND_INTERNAL
    made = pb.Span(
        name=span.name, trace_id=span.trace, span_id=span.span, parent_span_id=span.parent,
        start_time_unix_nano=int(span.begin * 1e9) + OFFSET,
        end_time_unix_nano=int(max(span.begin, span.end) * 1e9) + OFFSET,
        kind=kind, trace_state=span.state,
    )  # fmt: skip
    for key, value in span.attributes:
        about = made.attributes.add(key=key).value
        if isinstance(value, str):
            about.string_value = value
        elif isinstance(value, bool):
            about.bool_value = value
        else:
            about.int_value = value
    for trace, linked in span.links:
        made.links.add(trace_id=trace, span_id=linked)
    if span.error is not None:
        made.status.code, made.status.message = pb.Status.STATUS_CODE_ERROR, span.error
    return made


@pytest.mark.parametrize("spans", [[], [BARE], [FULL], [BARE, FULL, BARE]])
def test_a_message_has_all_that_is_told_of_each_span(spans: list[Span]) -> None:
    expected = ExportTraceServiceRequest()
    resource = expected.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "s"
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "inferd", "1"
    scope.spans.extend(map(written, spans))
    encode = SpanEncoder((("service.name", "s"),), "1")
    # The second takes what is kept of the first.
    for _ in range(2):
        assert ExportTraceServiceRequest.FromString(encode(spans, OFFSET)) == expected
