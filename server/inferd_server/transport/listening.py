"""Looks at an address before gRPC does, which tells no reason and writes lines of its own."""

from __future__ import annotations

import errno
import os
import socket

from inferd_server.address import is_unix, socket_path
from inferd_server.errors import AddressInUse, CredentialsError, StartupError

HOPELESS = {errno.EADDRINUSE, errno.EACCES}
"""What no other address of the same name makes good."""


def check_free(address: str, reuse_port: bool = False, setting: str = "grpc_port") -> None:
    """See whether "host:port" can be listened on; with `reuse_port`, beside others that say so.

    `setting` is where the port stands, for the sentence.

    Raises:
        AddressInUse: it cannot, with the reason.
    """
    if is_unix(address):
        _check_path(address)
        return
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


def check_host(host: str) -> None:
    """See whether a host is an address of this machine, before any port is blamed for it.

    Raises:
        AddressInUse: it is none, with the reason.
    """
    if is_unix(host):
        return
    try:
        places = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, place in places[:1]:
            _bind(family, place, reuse_port=False)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise AddressInUse(
            f"host: {host!r} cannot be listened on: {why}; choose an address of this machine "
            "with --host, such as 127.0.0.1, or 0.0.0.0 for all of them"
        ) from error


def _check_path(address: str) -> None:
    """See whether a unix socket can be made; one that nobody listens on any more is replaced."""
    path = socket_path(address)
    try:
        if not path.parent.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not path.exists():
            return
        if not path.is_socket():
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX) as caller:
            taken = caller.connect_ex(str(path)) == 0
        if taken:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    except OSError as error:
        raise AddressInUse(
            f"host: {address} cannot be had: {error.strerror}; choose another path with --host"
        ) from error


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
    if is_unix(address):
        return AddressInUse(f"host: {address} cannot be had; choose another path with --host")
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
