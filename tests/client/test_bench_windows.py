from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.frames import (
    DATA,
    DEFAULT_WINDOW,
    END_STREAM,
    MAX_WINDOW,
    FrameReader,
    ProtocolError,
)
from inferd_client.bench.fast.messages import prefixed
from inferd_client.bench.fast.outbox import Baked, Outbox

from tests.client.bench_peer import Frame, Peer, Rig, answer_all, bodies, finished, greeting


@dataclass
class Windows:
    """A double of the server's bookkeeping: what the client may send, and what it sent."""

    connection: int = DEFAULT_WINDOW
    initial: int = DEFAULT_WINDOW
    spent: dict[int, int] = field(default_factory=dict)
    granted: dict[int, int] = field(default_factory=dict)
    bodies: dict[int, bytes] = field(default_factory=dict)
    ended: set[int] = field(default_factory=set)

    def take(self, outbox: Outbox) -> None:
        data = b"".join(bytes(part) for part in outbox.parts)
        outbox.parts.clear()
        for kind, flags, stream, payload in FrameReader().frames(data):
            if kind != DATA:
                continue
            assert stream not in self.ended
            self.connection -= len(payload)
            self.spent[stream] = self.spent.get(stream, 0) + len(payload)
            self.bodies[stream] = self.bodies.get(stream, b"") + payload
            assert self.connection >= 0
            assert self.left(stream) >= 0
            if flags & END_STREAM:
                self.ended.add(stream)

    def left(self, stream: int) -> int:
        return self.initial + self.granted.get(stream, 0) - self.spent.get(stream, 0)


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 90_000), min_size=1, max_size=5),
    initial=st.integers(0, 40_000),
    grants=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 30_000)), max_size=30),
)
def test_no_window_is_overrun_and_everything_arrives(
    sizes: list[int], initial: int, grants: list[tuple[int, int]]
) -> None:
    outbox, server = Outbox(), Windows(initial=initial)
    outbox.limits(initial, None)
    messages = {2 * index + 1: bytes([index]) * size for index, size in enumerate(sizes)}
    for stream, message in messages.items():
        outbox.request(stream, Baked(b"block", message))
        server.take(outbox)
    enough = [(index + 1, 100_000) for index in range(len(sizes))] + [(0, 1_000_000)]
    for index, size in [*grants, *enough]:
        stream = 2 * index - 1 if index else 0
        if stream:
            server.granted[stream] = server.granted.get(stream, 0) + size
        else:
            server.connection += size
        outbox.credit(stream, size)
        server.take(outbox)
    assert server.bodies == {stream: prefixed(body) for stream, body in messages.items()}
    assert server.ended == set(messages)
    assert not outbox.streams


def test_smaller_initial_window_makes_open_streams_wait_longer() -> None:
    outbox, server = Outbox(), Windows(initial=1000)
    outbox.limits(1000, None)
    outbox.request(1, Baked(b"block", bytes(1495)))
    server.take(outbox)
    assert server.spent == {1: 1000}
    # 900 less than it has used.
    outbox.limits(100, None)
    outbox.credit(1, 900)
    server.take(outbox)
    assert server.spent == {1: 1000}
    server.initial = 100
    server.granted[1] = 1400
    outbox.credit(1, 500)
    server.take(outbox)
    assert server.spent == {1: 1500}


def test_small_request_does_not_overtake_one_that_waits_for_the_connection() -> None:
    outbox, server = Outbox(), Windows()
    outbox.limits(MAX_WINDOW, None)
    server.initial = MAX_WINDOW
    outbox.request(1, Baked(b"block", bytes(DEFAULT_WINDOW)))
    outbox.request(3, Baked(b"block", b"small"))
    server.take(outbox)
    assert set(server.bodies) == {1}
    server.connection += 100
    outbox.credit(0, 100)
    server.take(outbox)
    assert server.ended == {1, 3}


def test_stream_that_waits_for_its_own_window_holds_up_no_other() -> None:
    outbox, server = Outbox(), Windows(initial=100)
    outbox.limits(100, None)
    outbox.request(1, Baked(b"block", bytes(1000)))
    outbox.request(3, Baked(b"block", b"small"))
    server.take(outbox)
    assert server.ended == {3}


def test_nothing_more_is_sent_on_a_stream_that_is_given_up() -> None:
    outbox, server = Outbox(), Windows(initial=100)
    outbox.limits(100, None)
    outbox.request(1, Baked(b"block", bytes(1000)))
    server.take(outbox)
    assert outbox.forget(1)
    outbox.credit(1, 5000)
    outbox.credit(0, 5000)
    assert not outbox.parts
    assert not outbox.forget(1)


def test_messages_of_a_stream_share_its_window() -> None:
    outbox, server = Outbox(), Windows(initial=25)
    outbox.limits(25, None)
    outbox.open(1, b"block")
    for _ in range(5):
        outbox.message(1, prefixed(b"12345"))
    server.take(outbox)
    assert len(server.bodies[1]) == 25
    server.granted[1] = 25
    outbox.credit(1, 25)
    server.take(outbox)
    assert server.bodies == {1: prefixed(b"12345") * 5}
    assert not server.ended


def test_larger_frames_are_used_once_the_server_takes_them() -> None:
    outbox = Outbox()
    outbox.limits(None, 30_000)
    outbox.request(1, Baked(b"block", bytes(29_000)))
    data = b"".join(bytes(part) for part in outbox.parts)
    lengths = [
        len(payload) for kind, _, _, payload in FrameReader(30_000).frames(data) if kind == DATA
    ]
    assert lengths == [29_005]


@pytest.mark.parametrize(
    ("window", "text"), [((0, 0), "by nothing"), ((0, MAX_WINDOW), "too wide")]
)
def test_impossible_window_is_an_error(window: tuple[int, int], text: str) -> None:
    with pytest.raises(ProtocolError, match=text):
        Outbox().credit(*window)


@pytest.mark.parametrize("limits", [(2**31, None), (None, 16_383), (None, 2**24)])
def test_impossible_setting_is_an_error(limits: tuple[int | None, int | None]) -> None:
    with pytest.raises(ProtocolError):
        Outbox().limits(*limits)


def test_large_request_arrives_through_tiny_windows() -> None:
    message = bytes(range(256)) * 40

    def script(peer: Peer, found: list[Frame]) -> None:
        for frame in found:
            if frame.kind == DATA and not frame.flags & END_STREAM:
                assert len(frame.payload) <= 100
                size = len(frame.payload).to_bytes(4)
                peer.send(frames.frame(frames.WINDOW_UPDATE, 0, frame.stream, size))
        answer_all(peer, found)

    rig = Rig(greeting(script, initial_window_size=100), request=message)
    assert rig.run().codes == {"OK": 1}
    assert bodies(rig.peers[0].seen, 1) == prefixed(message)


def test_600_kb_wait_for_the_window_of_the_connection() -> None:
    message = bytes(600_000)

    def script(peer: Peer, found: list[Frame]) -> None:
        size = sum(len(frame.payload) for frame in found if frame.kind == DATA)
        assert size <= DEFAULT_WINDOW
        if size and not finished(found):
            peer.send(frames.frame(frames.WINDOW_UPDATE, 0, 0, size.to_bytes(4)))
        answer_all(peer, found)

    rig = Rig(greeting(script, initial_window_size=MAX_WINDOW), request=message)
    assert rig.run().codes == {"OK": 1}
    assert bodies(rig.peers[0].seen, 1) == prefixed(message)
