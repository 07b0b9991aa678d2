"""The settings of traces."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from inferd_server.settings.section import Section

TRACES_PATH = "/v1/traces"
"""Where receivers take traces. Source: OTLP 1.5, Default Request Paths."""


class TracingSettings(Section):
    """Traces of requests, sent to an OTLP receiver (docs/tracing.md)."""

    traces_to: str = Field(
        "",
        description="http:// or https:// address of an OTLP receiver, such as "
        "http://127.0.0.1:4318; empty: nothing is traced",
    )
    trace_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="part of the requests to trace whose caller brings no traceparent; with one, "
        "its sampled flag decides",
    )
    trace_service: Annotated[str, Field(min_length=1)] = Field(
        "inferd", description="what traces call this server (service.name)"
    )
    trace_headers_file: str = Field(
        "",
        description="file of headers for the receiver, `name: value` on each line, such as a "
        "token; read each time something is sent",
    )
    trace_pause_s: Annotated[float, Field(gt=0, le=60)] = Field(
        5.0,
        description="seconds between two messages to the receiver: what comes meanwhile goes into "
        "one, or into more if it is much",
    )

    @field_validator("traces_to")
    @classmethod
    def _receiver(cls, value: str) -> str:
        """Refuse what is no address, and any address where the package is missing."""
        if not value:
            return value
        try:
            parts = urlsplit(value)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("http://HOST:PORT or https://HOST:PORT was expected")
        if parts.username is not None:
            raise ValueError("a password belongs into the file that trace_headers_file names")
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.proto") is None:
            raise ValueError("this needs opentelemetry-proto: install inferd[tracing]")
        return value

    @property
    def trace_url(self) -> str:
        """Where traces are posted: as given, or to the usual path where none was."""
        path = urlsplit(self.traces_to).path
        return self.traces_to if path.strip("/") else self.traces_to.rstrip("/") + TRACES_PATH
