"""The port that all fronts share."""

from __future__ import annotations

import socket

import pytest
from inferd_server.errors import AddressInUse
from inferd_server.processes.ports import ReservedPort


def port_of_a_server_that_ended(shared: bool) -> int:
    """Return a port on which a connection is closing, as it is for a minute (TIME_WAIT).

    A server of one process does not share it, fronts do.
    """
    with socket.socket() as listener:
        # As gRPC does.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, shared)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port: int = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as caller:
            accepted, _ = listener.accept()
            # Who closes first is the one that waits.
            accepted.close()
            assert caller.recv(1) == b""
    return port


@pytest.mark.parametrize("shared", [False, True])
def test_a_port_with_closing_connections_is_taken_at_once(shared: bool) -> None:
    port = port_of_a_server_that_ended(shared)
    with pytest.raises(OSError, match="in use"), socket.socket() as plain:
        plain.bind(("127.0.0.1", port))
    reserved = ReservedPort("127.0.0.1", port)
    assert reserved.port == port
    # A front beside it is handed what arrives.
    with socket.socket() as front:
        front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        front.bind(("127.0.0.1", port))
        front.listen(1)
        with socket.create_connection(("127.0.0.1", port)):
            front.accept()[0].close()
    reserved.close()


def test_a_port_on_which_somebody_listens_is_not() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen(1)
        with pytest.raises(AddressInUse, match="grpc_port"):
            ReservedPort("127.0.0.1", other.getsockname()[1])


def test_a_port_that_another_server_reserved_is_not() -> None:
    first = ReservedPort("127.0.0.1", 0)
    with pytest.raises(AddressInUse, match="probe_port"):
        ReservedPort("127.0.0.1", first.port, "probe_port")
    first.close()
