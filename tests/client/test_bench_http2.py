from __future__ import annotations

import pytest
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    ErrorCode,
)
from inferd_client.bench.fast.messages import prefixed

from tests.client.bench_peer import (
    INITIAL,
    OK_TRAILERS,
    Frame,
    Peer,
    Rig,
    block,
    finished,
    greeting,
    started,
)


def whole_answer(stream: int) -> bytes:
    """An answer with everything that the protocol allows and no server of ours sends."""
    head, trailers = block(*INITIAL), block(*OK_TRAILERS)
    padding = bytes(7)
    priority = bytes(5)
    message = prefixed(b"answer")
    return b"".join(
        (
            frames.frame(0xFA, 0xFF, 0, b"of a kind that nobody knows"),
            frames.frame(frames.PRIORITY, 0, stream, priority),
            frames.frame(HEADERS, END_HEADERS, stream, block((":status", "103"))),
            frames.frame(
                HEADERS,
                frames.PADDED | frames.WITH_PRIORITY,
                stream,
                bytes((7,)) + priority + head[:3] + padding,
            ),
            frames.frame(frames.CONTINUATION, 0, stream, head[3:5]),
            frames.frame(frames.CONTINUATION, END_HEADERS, stream, head[5:]),
            frames.frame(DATA, frames.PADDED, stream, bytes((7,)) + message[:4] + padding),
            frames.frame(frames.PING, 0, 0, b"12345678"),
            frames.frame(DATA, 0, stream, b""),
            frames.frame(DATA, 0, stream, message[4:]),
            frames.frame(HEADERS, END_STREAM, stream, trailers[:1]),
            frames.frame(frames.CONTINUATION, END_HEADERS, stream, trailers[1:]),
        )
    )


@pytest.mark.parametrize("size", [1, 2, 7, 10_000])
def test_answer_is_read_however_it_is_framed_and_cut(size: int) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            data = whole_answer(stream)
            for at in range(0, len(data), size):
                peer.send(data[at : at + size])

    rig = Rig(greeting(script), requests=3)
    assert rig.run().codes == {"OK": 3}


def test_connection_reads_its_bytes_one_by_one() -> None:
    class Caller:
        def __init__(self) -> None:
            self.got = b""
            self.codes: list[str] = []

        def data(self, data: bytes) -> None:
            self.got += data

        def ended(self, code: str) -> None:
            self.codes.append(code)

        def unprocessed(self) -> None:
            raise AssertionError

    connection, caller = Connection(), Caller()
    connection.receive(frames.settings({}))
    stream = connection.open(b"block", caller)
    for byte in whole_answer(stream):
        connection.receive(bytes((byte,)))
    assert (caller.got, caller.codes) == (prefixed(b"answer"), ["OK"])


def test_pings_and_settings_are_acknowledged() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            peer.send(frames.frame(frames.PING, 0, 0, b"12345678"))
            peer.send(frames.frame(frames.PING, ACK, 0, b"not ours"))
            peer.greet(header_table_size=0)
            asked.append(stream)
        if any(frame.kind == frames.PING for frame in found):
            peer.answer(asked.pop())

    asked: list[int] = []
    rig = Rig(greeting(script))
    assert rig.run().codes == {"OK": 1}
    seen = rig.peers[0].seen
    assert [each.payload for each in seen if each.kind == frames.PING] == [b"12345678"]
    assert len([each for each in seen if each.kind == frames.SETTINGS and each.flags & ACK]) == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ErrorCode.NO_ERROR, "INTERNAL"),
        (ErrorCode.REFUSED_STREAM, "UNAVAILABLE"),
        (ErrorCode.CANCEL, "CANCELLED"),
        (ErrorCode.ENHANCE_YOUR_CALM, "RESOURCE_EXHAUSTED"),
        (ErrorCode.INADEQUATE_SECURITY, "PERMISSION_DENIED"),
        (99, "INTERNAL"),
    ],
)
def test_reset_stream_is_counted_and_the_others_go_on(error: int, code: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            if stream == 3:
                peer.reset(stream, error)
            else:
                peer.answer(stream)

    rig = Rig(greeting(script), concurrency=2, requests=5, connections=1)
    assert rig.run().codes == {"OK": 4, code: 1}


def test_failure_is_counted_by_the_code_in_its_trailers() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            if stream == 1:
                peer.send(frames.frame(HEADERS, END_HEADERS, stream, block(*INITIAL)))
            peer.end(stream, ("grpc-status", "8"), ("grpc-message", f"full {stream}"))

    samples = Rig(greeting(script), requests=3).run()
    assert samples.codes == {"RESOURCE_EXHAUSTED": 3}
    assert samples.latencies == []


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        # Nothing, half an answer, two answers, none of which is a success.
        ((), "INTERNAL"),
        ((prefixed(b"answer")[:-1],), "INTERNAL"),
        ((prefixed(b"answer"), prefixed(b"answer")), "INTERNAL"),
        ((prefixed(b"answer"), b"\0\0"), "INTERNAL"),
        ((prefixed(b"ans"), b""), "OK"),
    ],
)
def test_success_is_one_whole_answer(parts: tuple[bytes, ...], code: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            peer.send(frames.frame(HEADERS, END_HEADERS, stream, block(*INITIAL)))
            peer.send(*(frames.frame(DATA, 0, stream, part) for part in parts))
            peer.end(stream)

    assert Rig(greeting(script), requests=2).run().codes == {code: 2}


@pytest.mark.parametrize(
    ("initial", "code"), [(INITIAL, "UNKNOWN"), (((":status", "503"),), "UNAVAILABLE")]
)
def test_end_without_a_status_is_a_failure(initial: tuple[tuple[str, str], ...], code: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in finished(found):
            peer.send(frames.frame(HEADERS, END_HEADERS, stream, block(*initial)))
            peer.send(frames.frame(DATA, END_STREAM, stream, prefixed(b"answer")))

    assert Rig(greeting(script), requests=2).run().codes == {code: 2}


def test_answer_before_the_request_is_sent_ends_the_request() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in started(found):
            peer.end(stream, ("grpc-status", "7"))

    rig = Rig(greeting(script, initial_window_size=3), request=bytes(100), requests=2)
    assert rig.run().codes == {"PERMISSION_DENIED": 2}
    resets = [frame for frame in rig.peers[0].seen if frame.kind == frames.RST_STREAM]
    assert resets[0].stream == 1


class Sink:
    """A call that wants nothing."""

    def data(self, data: bytes) -> None: ...

    def ended(self, code: str) -> None: ...

    def unprocessed(self) -> None: ...


def test_server_may_send_as_much_as_it_likes() -> None:
    connection = Connection(credit=10_000)
    connection.receive(frames.settings({}))
    stream = connection.open(b"block", Sink())
    connection.outbox.parts.clear()
    for _ in range(7):
        connection.receive(frames.frame(DATA, 0, stream, bytes(3000)))
    widened = frames.frame(frames.WINDOW_UPDATE, 0, 0, (12_000).to_bytes(4))
    assert connection.outbox.parts == [widened]


def test_padding_is_given_back_to_the_window_of_its_stream() -> None:
    connection = Connection()
    connection.receive(frames.settings({}))
    stream = connection.open(b"block", Sink())
    connection.outbox.parts.clear()
    connection.receive(frames.frame(DATA, frames.PADDED, stream, b"\x03data" + bytes(3)))
    widened = frames.frame(frames.WINDOW_UPDATE, 0, stream, (4).to_bytes(4))
    assert connection.outbox.parts == [widened]
