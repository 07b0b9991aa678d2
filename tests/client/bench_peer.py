"""A double of a gRPC server that does with its frames what a test tells it to.

It sits at the other end of a socket pair, so that the fast client's sockets are real, and
everything that is sent has arrived when `turn` looks for it.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import hpack
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.drive import Generator
from inferd_client.bench.fast.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    FrameReader,
    Setting,
)
from inferd_client.bench.fast.messages import prefixed
from inferd_client.bench.fast.wire import Address, Owner, Wire, Wires
from inferd_client.bench.plan import Plan
from inferd_client.bench.samples import Samples

OK_TRAILERS = (("grpc-status", "0"),)
INITIAL = ((":status", "200"), ("content-type", "application/grpc"))
# More than any script here needs.
MOST_TURNS = 2000

PLAN = Plan("peer:1", b"request", concurrency=1, duration=1e6, requests=1, client="fast")


class Frame(NamedTuple):
    """One frame that the client sent."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def block(*fields: tuple[str, str], huffman: bool = True) -> bytes:
    """Encode headers without the table of the connection."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode(fields, huffman=huffman)


class Peer:
    """The server's end of one connection."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(False)
        self._reader = FrameReader(frames.LARGEST_FRAME_BYTES)
        self._greeted = False
        self.closed = False
        self.seen: list[Frame] = []

    def read(self) -> list[Frame]:
        """Return the frames that arrived since the last time."""
        data = b""
        try:
            while part := self._socket.recv(1 << 20):
                data += part
            self.closed = True
        except BlockingIOError:
            pass
        if not self._greeted and data:
            assert data.startswith(PREFACE)
            data, self._greeted = data.removeprefix(PREFACE), True
        found = [Frame(*found) for found in self._reader.frames(data)]
        self.seen += found
        return found

    def send(self, *parts: bytes) -> None:
        self._socket.sendall(b"".join(parts))

    def greet(self, **values: int) -> None:
        """Send the settings, by their names in lower case."""
        named = {Setting[name.upper()]: value for name, value in values.items()}
        self.send(frames.settings(named))

    def answer(self, stream: int, message: bytes = b"answer") -> None:
        self.send(
            frames.frame(HEADERS, END_HEADERS, stream, block(*INITIAL)),
            frames.frame(DATA, 0, stream, prefixed(message)),
        )
        self.end(stream)

    def say(self, stream: int, message: bytes) -> None:
        """Send a message on a stream that goes on."""
        self.send(frames.frame(DATA, 0, stream, prefixed(message)))

    def end(self, stream: int, *trailers: tuple[str, str]) -> None:
        fields = block(*(trailers or OK_TRAILERS))
        self.send(frames.frame(HEADERS, END_HEADERS | END_STREAM, stream, fields))

    def go_away(self, last: int) -> None:
        self.send(frames.frame(frames.GOAWAY, 0, 0, last.to_bytes(4) + bytes(4)))

    def reset(self, stream: int, error: int) -> None:
        self.send(frames.frame(frames.RST_STREAM, 0, stream, error.to_bytes(4)))

    def hang_up(self) -> None:
        self._socket.close()


Script = Callable[[Peer, list[Frame]], None]


class PeerWires(Wires):
    """Socket pairs in place of connections. The script sees each batch of frames."""

    def __init__(self, script: Script, clock: TestClock) -> None:
        super().__init__(selectors.DefaultSelector())
        self.peers: list[Peer] = []
        self.refuse = False
        self._script = script
        self._clock = clock
        self._turns = 0

    def open(self, address: Address, owner: Owner) -> Wire:
        if self.refuse:
            raise ConnectionRefusedError
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.peers.append(Peer(theirs))
        return self.add(ours, owner)

    def turn(self, seconds: float) -> None:
        self._turns += 1
        assert self._turns < MOST_TURNS, "the run does not come to its end"
        super().turn(0.0)
        self._clock.now += min(seconds, self._clock.step)
        for peer in self.peers:
            if not peer.closed and peer._socket.fileno() >= 0 and (found := peer.read()):
                self._script(peer, found)

    def close(self) -> None:
        super().close()
        for peer in self.peers:
            peer.hang_up()


class TestClock:
    """Goes on by `step` seconds at most each turn."""

    __test__ = False

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step

    def __call__(self) -> float:
        return self.now


class Rig:
    """The fast client, and the peers that it connected to."""

    def __init__(self, script: Script, step: float = 0.0, **plan: object) -> None:
        self.clock = TestClock(step)
        self.plan = replace(PLAN, **plan)  # type: ignore[arg-type]
        self.wires = PeerWires(script, self.clock)
        self.addresses: list[Address] = [(socket.AF_UNIX, "peer")]

    @property
    def peers(self) -> list[Peer]:
        return self.wires.peers

    def run(self) -> Samples:
        generator = Generator(self.plan, self.wires, self.addresses, clock=self.clock)
        try:
            return generator.measure(self.plan)
        finally:
            self.wires.close()


def is_hello(frame: Frame) -> bool:
    """Tell whether these are the client's first settings."""
    return frame.kind == frames.SETTINGS and not frame.flags & ACK


def greeting(script: Script, **settings: int) -> Script:
    """Return a script that greets and then goes on with another."""

    def greeted(peer: Peer, found: list[Frame]) -> None:
        if any(map(is_hello, found)):
            peer.greet(**settings)
        script(peer, found)

    return greeted


def started(found: list[Frame]) -> list[int]:
    """Return the streams whose headers are among the frames."""
    return [frame.stream for frame in found if frame.kind == HEADERS]


def finished(found: list[Frame]) -> list[int]:
    """Return the streams that the client half-closed."""
    return [
        frame.stream
        for frame in found
        if frame.kind in {DATA, HEADERS} and frame.flags & END_STREAM
    ]


def bodies(found: list[Frame], stream: int) -> bytes:
    """Return all DATA of one stream."""
    return b"".join(each.payload for each in found if (each.kind, each.stream) == (DATA, stream))


def answer_all(peer: Peer, found: list[Frame]) -> None:
    """Answer every request as soon as it is complete; a script."""
    for stream in finished(found):
        peer.answer(stream)
