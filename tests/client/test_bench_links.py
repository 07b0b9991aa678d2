"""Sockets, pauses between connections, and the moments at which requests are given up."""

from __future__ import annotations

import selectors
import socket
from dataclasses import replace

import pytest
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.link import Link
from inferd_client.bench.fast.load import Load
from inferd_client.bench.fast.wire import Address, Owner, Wire
from inferd_client.bench.samples import Samples

from tests.client.bench_peer import PLAN, TestClock


class Caller:
    """A call that remembers how it ended."""

    def __init__(self) -> None:
        self.codes: list[str] = []

    def begin(self, connection: Connection) -> None: ...

    def ended(self, code: str) -> None:
        self.codes.append(code)


class FakeWire:
    """A wire without a socket."""

    def __init__(self) -> None:
        self.connection = Connection()


class FakeWires:
    """Refuses unless it is told to accept."""

    def __init__(self) -> None:
        self.attempts = 0
        self.accepts = False

    def open(self, address: Address, owner: Owner) -> FakeWire:
        self.attempts += 1
        if not self.accepts:
            raise ConnectionRefusedError
        return FakeWire()


def test_pauses_grow_until_a_connection_served_and_start_anew_then() -> None:
    wires, clock = FakeWires(), TestClock()
    link = Link([(socket.AF_UNIX, "peer")], wires, clock)  # type: ignore[arg-type]

    def pause() -> float:
        """Return the seconds until the link tries again."""
        before, start = wires.attempts, clock.now
        link.submit(Caller())
        while wires.attempts == before:
            clock.now += 0.001
            link.dispatch()
        return round(clock.now - start, 2)

    first = Caller()
    link.submit(first)
    assert first.codes == ["UNAVAILABLE"]
    assert [pause() for _ in range(7)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    wires.accepts = True
    assert pause() == 1.0
    wire = link._wire
    assert wire is not None
    wire.connection.answered = True
    wires.accepts = False
    link.lost(wire)
    assert pause() == 0.05


def test_wire_watches_for_room_only_while_it_has_more_to_write() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with selectors.DefaultSelector() as selector, theirs:
        wire = Wire(ours, selector, None)  # type: ignore[arg-type]
        wire.flush()
        assert selector.get_key(ours).events == selectors.EVENT_READ
        greeting = len(theirs.recv(1000))
        message = bytes(range(256)) * 10_000
        wire.connection.outbox.parts += (message, b"end")
        wire.flush()
        assert selector.get_key(ours).events == selectors.EVENT_READ | selectors.EVENT_WRITE
        got = b""
        while len(got) < len(message) + 3:
            got += theirs.recv(1 << 20)
            wire.flush()
        assert (got, greeting > 0) == (message + b"end", True)
        assert selector.get_key(ours).events == selectors.EVENT_READ
        wire.close()


class Place:
    """A place whose requests are never answered."""

    def __init__(self, load: Load, clock: TestClock) -> None:
        self.due = 0.0
        self.started = 0.0
        self.expired: list[float] = []
        self._load = load
        self._clock = clock

    def send(self) -> None: ...

    def expire(self) -> None:
        self.expired.append(round(self._clock.now - 100.0, 3))
        self._load.settle(self, "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(
    ("rate", "expired"),
    [
        # Due at 0, 0.3 and 0.6 s: the last is sent by the first place to be free, at 0.6 s.
        (1 / 0.3, [0.5, 0.8, 1.1]),
        # All at once, and the third when the first is given up.
        (None, [0.5, 0.5, 1.0]),
    ],
)
def test_each_request_is_given_up_when_its_own_time_is_over(
    rate: float | None, expired: list[float]
) -> None:
    clock = TestClock()
    load = Load(clock)
    places = [Place(load, clock), Place(load, clock)]
    plan = replace(PLAN, rate=rate, requests=3, concurrency=2, timeout=0.5)
    samples = Samples(started=clock())
    load.begin(plan, places, samples)
    while load.busy:
        clock.now += max(load.look(), 1e-6)
    assert sorted(moment for place in places for moment in place.expired) == expired
    assert samples.codes == {"DEADLINE_EXCEEDED": 3}
