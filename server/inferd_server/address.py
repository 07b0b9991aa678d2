"""Addresses to listen on or to connect to."""

from __future__ import annotations

import ipaddress
from pathlib import Path

UNIX = "unix:"
LOOPBACK = "127.0.0.1"


def join_address(host: str, port: int) -> str:
    """Join host and port, with brackets around an IPv6 address; a unix socket has no port."""
    if is_unix(host):
        return host
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_unix(address: str) -> bool:
    """True for a unix socket: unix:PATH or unix:///PATH.

    Source: gRPC, doc/naming.md.
    """
    return address.startswith(UNIX)


def socket_path(address: str) -> Path:
    """Return the path of a unix socket."""
    return Path(address.removeprefix(UNIX).removeprefix("//"))


def beside(host: str) -> str:
    """Return where a server listens for what is HTTP or TCP only, beside a unix socket."""
    return LOOPBACK if is_unix(host) else host


def is_loopback(host: str) -> bool:
    """True for what only this machine reaches: localhost, loopback addresses, unix sockets."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or is_unix(host)
