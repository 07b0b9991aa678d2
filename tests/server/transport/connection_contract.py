"""Connections: pings, age, limits, shared ports. A class per transport inherits it."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace

import grpc
import pytest
from inferd_server.errors import AddressInUse
from inferd_server.transport.call import Call, Routes

from tests.server.serving import failure
from tests.server.transport.client import (
    PATIENCE,
    Client,
    Held,
    Recorders,
    Requests,
    connect,
)
from tests.server.transport.contract import (
    OPTIONS,
    PATH,
    TransportContract,
    assert_still_serves,
    echo,
    holding,
)
from tests.server.transport.frames import (
    ACK,
    ENHANCE_YOUR_CALM,
    GOAWAY,
    PING,
    SETTINGS,
    connected,
    frame,
)
from tests.server.transport.stream_contract import echo_stream

MAX_CONCURRENT_STREAMS = b"\x00\x03"
SERVERS_TRIED = 64


def tell_peer(call: Call) -> None:
    call.reply((call.peer.encode(),))


class ConnectionContract(TransportContract):
    """What a caller can observe of its connection."""

    def test_a_silent_connection_is_pinged_and_closed_if_it_does_not_answer(self) -> None:
        serve = self.serve_with(keepalive_time=0.1, keepalive_timeout=0.1)
        with serve(holding(Held())) as client, connected(client.address) as connection:
            kinds = [(f.kind, f.flags) for f in connection.frames()]
            # The frames ended, and so the server closed the connection.
            assert (PING, 0) in kinds
            assert_still_serves(client)

    def test_a_connection_that_answers_pings_stays(self) -> None:
        serve = self.serve_with(keepalive_time=0.1, keepalive_timeout=PATIENCE)
        with serve(holding(Held())) as client, connected(client.address) as connection:
            for _ in range(3):
                ping = connection.await_frame(PING)
                connection.send(frame(PING, ACK, payload=ping.payload))
            connection.send(frame(SETTINGS))
            connection.await_frame(SETTINGS, ACK)

    def test_a_caller_that_pings_too_often_is_sent_away(self) -> None:
        serve = self.serve_with(min_ping_interval=60.0)
        with serve(holding(Held())) as client, connected(client.address) as connection:
            # The first, and three that come too early, of which gRPC forgives two.
            connection.send(b"".join(frame(PING, payload=bytes((n,)) * 8) for n in range(4)))
            away = connection.await_frame(GOAWAY)
            assert int.from_bytes(away.payload[4:8], "big") == ENHANCE_YOUR_CALM
            assert_still_serves(client)

    def test_a_caller_may_ping_as_often_as_it_is_permitted(self) -> None:
        serve = self.serve_with(min_ping_interval=0.0)
        with serve(holding(Held())) as client, connected(client.address) as connection:
            for number in range(10):
                payload = bytes((number,)) * 8
                connection.send(frame(PING, payload=payload))
                assert connection.await_frame(PING, ACK).payload == payload

    def test_an_aged_connection_takes_no_new_calls_and_its_streams_go_on(self) -> None:
        recorders = Recorders(echo_stream)
        routes = Routes(unary={PATH: tell_peer}, streams={"/test.Service/S": recorders})
        with self.serve_with(max_connection_age=0.3)(routes) as client:
            requests = Requests(b"1")
            answers = client.stream("/test.Service/S", iter(requests))
            assert next(answers) == b"<1>"
            peer = recorders.next().stream.peer.encode()
            await_other_connection(client, peer)
            requests.send(b"2")
            assert next(answers) == b"<2>"
            answers.cancel()

    def test_streams_that_outlast_the_grace_of_an_aged_connection_are_unavailable(self) -> None:
        recorders = Recorders(echo_stream)
        routes = Routes(unary={PATH: tell_peer}, streams={"/test.Service/S": recorders})
        serve = self.serve_with(max_connection_age=0.2, max_connection_age_grace=0.2)
        with serve(routes) as client:
            answers = client.stream("/test.Service/S", iter(Requests(b"1")))
            assert next(answers) == b"<1>"
            error = failure(lambda: next(answers))
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert recorders.next().over.get(timeout=PATIENCE) is True
            assert client.call(PATH).startswith(b"ipv4:")

    def test_a_connection_has_only_so_many_calls_at_a_time(self) -> None:
        held = Held()
        with self.serve_with(max_concurrent_streams=1)(holding(held)) as client:
            with connected(client.address) as connection:
                limits = connection.await_frame(SETTINGS).payload
                assert MAX_CONCURRENT_STREAMS + (1).to_bytes(4, "big") in limits
            # Gone through once, so that the client knows the limit.
            assert_still_serves(client)
            first, second = (client.unary(PATH).future(bytes((i,))) for i in range(2))
            call = held.next()
            with connect(client.address) as other:
                assert other.unary_unary("/test.Service/Echo")(b"x", timeout=PATIENCE) == b"x"
            assert held.calls.empty()
            call.reply((b"",))
            held.next().reply((b"",))
            assert first.result(PATIENCE) == second.result(PATIENCE) == b""

    def test_connections_above_the_bound_are_closed_and_the_others_served(self) -> None:
        with self.serve_with(max_connections=2)(holding(Held())) as client:
            assert_still_serves(client)
            with connected(client.address) as second:
                second.await_frame(SETTINGS)
                for _ in range(20):
                    with connected(client.address) as third:
                        third.await_end()
                assert_still_serves(client)
            await_room(client.address)
            assert_still_serves(client)

    def test_metadata_above_the_limit_is_refused_and_below_it_arrives(self) -> None:
        held = Held()
        with self.serve_with(max_metadata_bytes=2048)(holding(held)) as client:
            fitting = client.unary(PATH).future(b"", metadata=(("a-key", "x" * 1500),))
            assert ("a-key", "x" * 1500) in list(held.next().metadata)
            fitting.cancel()
            for _ in range(3):
                error = failure(lambda: client.call(PATH, metadata=(("a-key", "x" * 2048),)))
                assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            assert_still_serves(client)
            assert held.calls.empty()

    def test_two_servers_share_a_port_and_the_connections_to_it(self) -> None:
        serve = self.serve_with(reuse_port=True)
        with serve(Routes(unary={PATH: lambda call: call.reply((b"first",))})) as client:
            second = self.make(replace(OPTIONS, reuse_port=True))
            port = second.start(
                client.address, Routes(unary={PATH: lambda call: call.reply((b"second",))})
            )
            try:
                assert client.address.endswith(f":{port}")
                assert set(answers_of_connections(client.address)) == {b"first", b"second"}
            finally:
                second.stop(0)
            with connect(client.address) as channel:
                assert channel.unary_unary(PATH)(b"", timeout=PATIENCE) == b"first"

    @pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
    def test_a_port_is_shared_only_where_both_servers_say_so(
        self, first: bool, second: bool
    ) -> None:
        with self.serve_with(reuse_port=first)(Routes(unary={PATH: echo})) as client:
            with pytest.raises(AddressInUse, match=client.address):
                self.make(replace(OPTIONS, reuse_port=second)).start(client.address, Routes())
            assert client.call(PATH, b"still mine") == b"still mine"


def answers_of_connections(address: str) -> list[bytes]:
    """Call over new connections, all kept open, until both servers were met; or many times."""
    found: list[bytes] = []
    with ExitStack() as channels:
        while len(set(found)) < 2 and len(found) < SERVERS_TRIED:
            channel = channels.enter_context(connect(address))
            found.append(channel.unary_unary(PATH)(b"", timeout=PATIENCE))
    return found


def await_room(address: str) -> None:
    """Connect until a connection is kept."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with connected(address) as connection:
            if any(frame.kind == SETTINGS for frame in connection.first_frames()):
                return
    raise AssertionError("no connection is taken any more")


def await_other_connection(client: Client, peer: bytes) -> None:
    """Call until the calls come over another connection than `peer`'s."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if client.call(PATH) != peer:
            return
    raise AssertionError("the connection takes calls at any age")
