"""OTLP over HTTP: spans as the protocol's messages, and a POST. Source: OTLP 1.5.

The messages are made here, not by the library's SDK, which takes eight times as long for each and
holds Python's lock meanwhile; and without a connection that is kept, since one is made a second.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

from inferd_server.monitoring.tracing.spans import Attributes, Span

PATIENCE_S = 10.0
"""For the receiver to answer."""
MOST_ALIKE = 256
"""Beginnings of spans that are kept; those used longest ago are made anew."""
AGAIN = frozenset({429, 502, 503, 504})
"""Codes after which a message is to be sent again. Source: OTLP 1.5, Retryable Response Codes."""


class ReceiverRefused(Exception):
    """The receiver will not take this message, however often it is sent."""


class SpanEncoder:
    """Writes the messages of one server."""

    def __init__(self, resource: Attributes, version: str) -> None:
        """Write for a server; `resource` says which, `version` is the product's."""
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
        from opentelemetry.proto.trace.v1 import trace_pb2

        self._request = trace_service_pb2.ExportTraceServiceRequest
        self._span = lru_cache(MOST_ALIKE)(partial(beginning, trace_pb2.Span))
        self._serves, self._internal = (
            trace_pb2.Span.SPAN_KIND_SERVER,
            trace_pb2.Span.SPAN_KIND_INTERNAL,
        )
        self._failed = trace_pb2.Status.STATUS_CODE_ERROR
        self._resource = resource
        self._version = version

    def __call__(self, spans: Iterable[Span], offset: int) -> bytes:
        """Return a message; its times and `offset`, in nanoseconds, are those of the epoch."""
        request = self._request()
        found = request.resource_spans.add()
        put(found.resource.attributes, self._resource)
        scope = found.scope_spans.add()
        scope.scope.name, scope.scope.version = "inferd", self._version
        for span in spans:
            added = scope.spans.add(
                trace_id=span.trace,
                span_id=span.span,
                parent_span_id=span.parent,
                start_time_unix_nano=int(span.begin * 1e9) + offset,
                end_time_unix_nano=int(max(span.begin, span.end) * 1e9) + offset,
            )
            kind = self._serves if span.serves else self._internal
            added.MergeFrom(self._span(span.name, kind, *span.attributes.items()))
            if span.state:
                added.trace_state = span.state
            for trace, linked in span.links:
                added.links.add(trace_id=trace, span_id=linked)
            if span.error is not None:
                added.status.code, added.status.message = self._failed, span.error
        return request.SerializeToString()


def beginning(make: Any, name: str, kind: int, *attributes: tuple[str, str | int | bool]) -> Any:
    """Return what is the same in all spans of a kind."""
    span = make(name=name, kind=kind)
    put(span.attributes, dict(attributes))
    return span


def put(into: Any, attributes: Attributes) -> None:
    """Add attributes to a field of the protocol's messages."""
    for key, value in attributes.items():
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
