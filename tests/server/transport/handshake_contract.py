"""Connections that never become one, or never say what they want. A class per transport has it."""

from __future__ import annotations

import threading

import pytest
import trustme
from inferd_server.transport.call import Routes

from tests.server.transport.client import Held
from tests.server.transport.contract import (
    PATH,
    TransportContract,
    assert_still_serves,
    echo,
    holding,
)
from tests.server.transport.frames import (
    ACK,
    BEGUN,
    CONTINUATION,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    Connection,
    connected,
    frame,
    literal,
)
from tests.server.transport.tls_contract import echoed, issued, trusting

ESTABLISHED = BEGUN + frame(SETTINGS, ACK)
UNFINISHED = {
    "nothing": b"",
    "half a preface": PREFACE[:7],
    "no settings": PREFACE,
    "no acknowledgement": BEGUN,
}
# The head of a TLS record of 512 bytes, of which the first begins a ClientHello.
HELLO = bytes((22, 3, 1, 2, 0, 1))


# More than come through before the connection is closed.
DROPS = 1000


def drip(connection: Connection, drop: bytes) -> None:
    """Send the same little thing again and again."""
    pause = threading.Event()
    for _ in range(DROPS):
        connection.send(drop)
        pause.wait(0.02)


class HandshakeContract(TransportContract):
    """Such a connection is closed, and costs nobody else."""

    @pytest.mark.parametrize("begun", UNFINISHED)
    def test_a_connection_that_never_becomes_one_is_closed(self, begun: str) -> None:
        serve = self.serve_with(handshake_timeout=0.3)
        with (
            serve(holding(Held())) as client,
            connected(client.address, UNFINISHED[begun]) as connection,
        ):
            assert_still_serves(client)
            connection.await_end()
            assert_still_serves(client)

    def test_a_connection_that_never_finishes_its_tls_is_closed(
        self, authority: trustme.CA
    ) -> None:
        own = issued(authority)
        serve = self.serve_with(handshake_timeout=0.3, credentials=lambda: own)
        with (
            serve(Routes(unary={PATH: echo})) as client,
            connected(client.address, HELLO) as connection,
        ):
            assert echoed(client, trusting(authority)) == b"hello"
            connection.await_end()
            assert echoed(client, trusting(authority)) == b"hello"

    def test_headers_that_never_end_lose_their_connection_by_its_silence(self) -> None:
        # Nothing else may come in between, not even the answer to a ping.
        begun = ESTABLISHED + frame(HEADERS, 0, 1, literal(":method") + literal("POST", b""))
        serve = self.serve_with(keepalive_time=0.1, keepalive_timeout=0.1)
        with serve(holding(Held())) as client, connected(client.address, begun) as connection:
            assert_still_serves(client)
            connection.await_end()
            assert_still_serves(client)

    def test_headers_that_come_drop_by_drop_end_with_the_age_of_their_connection(self) -> None:
        begun = ESTABLISHED + frame(HEADERS, 0, 1, literal(":method") + literal("POST", b""))
        drop = frame(CONTINUATION, 0, 1, literal("a") + literal("b", b""))
        serve = self.serve_with(
            max_connection_age=0.3,
            keepalive_time=0.2,
            keepalive_timeout=0.2,
            max_metadata_bytes=1 << 20,
        )
        with serve(holding(Held())) as client, connected(client.address, begun) as connection:
            assert_still_serves(client)
            with pytest.raises(ConnectionError):
                drip(connection, drop)
            assert_still_serves(client)

    def test_an_established_connection_outlives_the_time_for_that(self) -> None:
        serve = self.serve_with(handshake_timeout=0.1, keepalive_time=0.2, keepalive_timeout=9.0)
        with serve(holding(Held())) as client, connected(client.address, ESTABLISHED) as connection:
            ping = connection.await_frame(PING)
            connection.send(frame(PING, ACK, payload=ping.payload))
            connection.await_frame(PING)
