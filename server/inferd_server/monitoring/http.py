"""As much of HTTP/1 as a page without a body in its request needs. Source: RFC 9112."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (\S+) HTTP/\d\.\d")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """The head of a request."""

    method: str
    target: str
    headers: Mapping[str, str]
    """By their names in small letters."""


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer, after which the connection ends."""

    status: int
    body: Sequence[bytes]
    """Its parts: that of many models is long, and best never copied as a whole."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def encoded(self, *, without_body: bool = False) -> bytes:
        """Return the bytes of the answer; without its body for HEAD."""
        headers = {
            **self.headers,
            "Content-Length": str(sum(map(len, self.body))),
            "Connection": "close",
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = "\r\n".join((*lines, "", "")).encode("latin-1")
        return head if without_body else b"".join((head, *self.body))


def text_response(status: int, text: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer of one line for people."""
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Response(status, (f"{text}\n".encode(),), {**kind, **(headers or {})})


def parse(head: bytes) -> HttpRequest | None:
    """Return the request that a head says; None if it is not HTTP/1."""
    first, *lines = head.decode("latin-1").split("\r\n")
    found = REQUEST_LINE.fullmatch(first)
    if found is None:
        return None
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return HttpRequest(found[1], found[2], headers)
