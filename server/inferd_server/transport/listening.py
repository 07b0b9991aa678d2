"""Looks at an address before gRPC does, which tells no reason and writes lines of its own."""

from __future__ import annotations

import errno
import socket

from inferd_server.errors import AddressInUse, CredentialsError, StartupError

HOPELESS = {errno.EADDRINUSE, errno.EACCES}
"""What no other address of the same name makes good."""


def check_free(address: str, reuse_port: bool = False, setting: str = "grpc_port") -> None:
    """See whether "host:port" can be listened on; with `reuse_port`, beside others that say so.

    `setting` is where the port stands, for the sentence.

    Raises:
        AddressInUse: it cannot, with the reason.
    """
    host, _, port = address.rpartition(":")
    try:
        places = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise unavailable(address, error, setting) from error
    for family, _, _, _, place in places:
        try:
            _bind(family, place, reuse_port)
        except OSError as error:
            if error.errno in HOPELESS or len(places) == 1:
                raise unavailable(address, error, setting) from error


def unavailable(address: str, error: OSError, setting: str = "grpc_port") -> AddressInUse:
    """Return the sentence for an address that cannot be had."""
    flag = "--" + setting.replace("_", "-")
    return AddressInUse(
        f"{setting}: {address} cannot be had: {error.strerror}; choose another with {flag}"
    )


def cannot_listen(address: str, secure: bool) -> StartupError:
    """Return the sentence for an address that gRPC would not take though it was free."""
    if secure:
        return CredentialsError(
            "the private key and the certificates for TLS cannot be used: they must be PEM, "
            "belong together, and the server's own certificate must come first"
        )
    return AddressInUse(f"grpc_port: {address} cannot be had; choose another with --grpc-port")


def _bind(family: int, place: tuple[object, ...], reuse_port: bool) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # As gRPC does: a port with closing connections is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(place)
        if not reuse_port:
            # Beside others it would be handed connections, and drop them.
            listener.listen(1)
