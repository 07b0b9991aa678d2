"""OTLP over HTTP: spans as the protocol's messages, and a POST. Source: OTLP 1.5.

The messages are made here, not by the library's SDK, which holds Python's lock many times as long
for each; and without a connection that is kept, since one is made every few seconds.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from http.client import HTTPException
from pathlib import Path
from struct import Struct
from typing import Any

from inferd.protobuf import FIXED64, delimited, field_tag, varint

from inferd_server.monitoring.tracing.context import SPAN_BYTES, TRACE_BYTES
from inferd_server.monitoring.tracing.spans import Attributes, Span

PATIENCE_S = 10.0
"""For the receiver to answer."""
MOST_ALIKE = 256
"""Beginnings of spans that are kept; those used longest ago are made anew."""
RESOURCE_SPANS, SCOPE_SPANS, SPANS_TAG = 1, 2, field_tag(2)
"""Fields of the messages around each other. Source: opentelemetry/proto/trace/v1/trace.proto."""
TRACE_TAG = field_tag(1) + varint(TRACE_BYTES)
SPAN_TAG, PARENT_TAG = (field_tag(number) + varint(SPAN_BYTES) for number in (2, 4))
BEGIN_TAG, END_TAG = (field_tag(number, FIXED64) for number in (7, 8))
IDS = f"2s{TRACE_BYTES}s2s{SPAN_BYTES}s"
FIXED = Struct(f"<{IDS}cQcQ")
"""Fields of a span that are as long in each."""
LINK = Struct(f"<2s{IDS}")
LINK_TAG = field_tag(13) + varint(LINK.size - 2)
AGAIN = frozenset({429, 502, 503, 504})
"""Codes after which a message is to be sent again. Source: OTLP 1.5, Retryable Response Codes."""


class ReceiverRefused(Exception):
    """The receiver will not take this message, however often it is sent."""


class SpanEncoder:
    """Writes the messages of one server."""

    def __init__(self, resource: Attributes, version: str) -> None:
        """Write for a server; `resource` says which, `version` is the product's."""
        from opentelemetry.proto.trace.v1 import trace_pb2

        self._beginning = lru_cache(MOST_ALIKE)(partial(beginning, trace_pb2))
        self._pb = trace_pb2
        scope = trace_pb2.ScopeSpans()
        scope.scope.name, scope.scope.version = "inferd", version
        self._scope = scope.SerializeToString()
        found = trace_pb2.ResourceSpans()
        put(found.resource.attributes, resource)
        self._resource = found.SerializeToString()

    def __call__(self, spans: Iterable[Span], offset: int) -> bytes:
        """Return a message; its times and `offset`, in nanoseconds, are those of the epoch."""
        parts = [self._scope]
        for span in spans:
            written = self._span(span, offset)
            parts += (SPANS_TAG, varint(len(written)), written)
        scope = delimited(SCOPE_SPANS, b"".join(parts))
        return delimited(RESOURCE_SPANS, self._resource + scope)

    def _span(self, span: Span, offset: int) -> bytes:
        begin, end = int(span.begin * 1e9) + offset, int(span.end * 1e9) + offset
        fixed = FIXED.pack(
            TRACE_TAG, span.trace, SPAN_TAG, span.span,
            BEGIN_TAG, begin, END_TAG, max(begin, end),
        )  # fmt: skip
        parts = [self._beginning(span.name, span.serves, span.attributes), fixed]
        if span.parent:
            parts += (PARENT_TAG, span.parent)
        for trace, linked in span.links:
            parts.append(LINK.pack(LINK_TAG, TRACE_TAG, trace, SPAN_TAG, linked))
        if span.state:
            parts.append(self._pb.Span(trace_state=span.state).SerializeToString())
        if span.error is not None:
            status = self._pb.Status(code=self._pb.Status.STATUS_CODE_ERROR, message=span.error)
            parts.append(self._pb.Span(status=status).SerializeToString())
        return b"".join(parts)


def beginning(pb: Any, name: str, serves: bool, attributes: Attributes) -> bytes:
    """Return what is the same in all spans of a kind; `pb` has the protocol's messages."""
    kind = pb.Span.SPAN_KIND_SERVER if serves else pb.Span.SPAN_KIND_INTERNAL
    span = pb.Span(name=name, kind=kind)
    put(span.attributes, attributes)
    found: bytes = span.SerializeToString()
    return found


def put(into: Any, attributes: Attributes) -> None:
    """Add attributes to a field of the protocol's messages."""
    for key, value in attributes:
        holder = into.add(key=key).value
        if isinstance(value, bool):
            holder.bool_value = value
        elif isinstance(value, int):
            holder.int_value = value
        else:
            holder.string_value = value


def poster(url: str, headers_file: str = "") -> Callable[[bytes], None]:
    """Return what sends a message to a receiver.

    It raises OSError where the same message may be sent again, and ReceiverRefused where not.

    Args:
        url: http:// or https://.
        headers_file: of what is sent besides, read each time; "": nothing is.
    """

    def post(message: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf", **headers_of(headers_file)}
        asked = urllib.request.Request(url, message, headers)  # noqa: S310 the settings checked it
        try:
            with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:  # noqa: S310
                answer.read(1)
        except urllib.error.HTTPError as error:
            # It holds the connection until then.
            error.close()
            if error.code in AGAIN:
                raise
            raise ReceiverRefused(f"the receiver answered {error.code}") from error
        except HTTPException as error:
            raise OSError(f"the receiver speaks no HTTP: {error!r}") from error

    return post


def headers_of(path: str) -> dict[str, str]:
    """Return the headers of a file, `name: value` on each line; "" stands for none.

    Raises:
        OSError: it cannot be read.
    """
    lines = Path(path).read_text(encoding="latin-1").splitlines() if path else []
    pairs = (line.partition(":") for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in pairs}
