"""Looks at an address before gRPC does, which tells no reason and writes lines of its own."""

from __future__ import annotations

import errno
import socket

from inferd_server.errors import AddressInUse

HOPELESS = {errno.EADDRINUSE, errno.EACCES}
"""What no other address of the same name makes good."""


def check_free(address: str) -> None:
    """See whether "host:port" can be listened on.

    Raises:
        AddressInUse: it cannot, with the reason.
    """
    host, _, port = address.rpartition(":")
    try:
        places = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise unavailable(address, error) from error
    for family, _, _, _, place in places:
        try:
            _bind(family, place)
        except OSError as error:
            if error.errno in HOPELESS or len(places) == 1:
                raise unavailable(address, error) from error


def unavailable(address: str, error: OSError) -> AddressInUse:
    """Return the sentence for an address that cannot be had."""
    return AddressInUse(
        f"grpc_port: {address} cannot be had: {error.strerror}; choose another with --grpc-port"
    )


def _bind(family: int, place: tuple[object, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # As gRPC does: a port with closing connections is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(1)
