"""Which client sends the load: the fast one, or gRPC's own."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

FAST, GRPC, AUTO = "fast", "grpc", "auto"

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^:/\[\]\s]+)):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Choice:
    """The client that sends, and why it is not the one that was hoped for, if so."""

    name: str
    reason: str = ""


def choose(
    asked: str, address: str, *, installed: bool, needs: str = "", secured: bool = False
) -> Choice:
    """Choose: `auto` takes the fast client where it can do what is asked.

    Args:
        asked: `auto`, `fast` or `grpc`.
        address: the server's, as gRPC takes it.
        installed: whether the fast client's own dependency is there.
        needs: the flag that only the fast client knows, if one was given.
        secured: whether the server is to be met over TLS or with a token.

    Raises:
        ValueError: the client that was asked for cannot do it; says why.
    """
    reason = _hindrance(address, installed=installed, secured=secured)
    if asked == GRPC or (asked == AUTO and reason and not needs):
        if needs:
            raise ValueError(f"{needs} needs the fast client")
        return Choice(GRPC, reason if asked == AUTO else "")
    if reason:
        raise ValueError(f"{needs or '--client fast'} needs the fast client: {reason}")
    return Choice(FAST)


def is_installed() -> bool:
    """Tell whether the fast client can run here."""
    return importlib.util.find_spec("hpack") is not None


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[v6]:port".

    Raises:
        ValueError: it is neither.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return match["v6"] or match["host"], int(match["port"])


def _hindrance(address: str, *, installed: bool, secured: bool) -> str:
    if secured:
        return "it speaks neither TLS nor tokens"
    if not installed:
        return "the package hpack is not installed (pip install 'inferd[bench]')"
    try:
        split_address(address)
    except ValueError as error:
        return str(error)
    return ""
