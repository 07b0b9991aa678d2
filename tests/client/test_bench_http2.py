from __future__ import annotations

import hpack
import pytest
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    MAX_STREAM,
    ErrorCode,
)
from inferd_client.bench.fast.messages import prefixed

from tests.client.bench_peer import (
    INITIAL,
    OK_TRAILERS,
    Frame,
    Peer,
    Rig,
    answer_all,
    block,
    finished,
    greeting,
    is_hello,
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


def test_nothing_is_asked_before_the_server_sent_its_settings() -> None:
    before: list[Frame] = []

    def script(peer: Peer, found: list[Frame]) -> None:
        if any(map(is_hello, found)):
            before.extend(found)
            peer.greet()
        answer_all(peer, found)

    rig = Rig(script)
    assert rig.run().codes == {"OK": 1}
    assert not started(before)


def test_pings_and_settings_are_acknowledged() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if finished(found):
            peer.send(frames.frame(frames.PING, 0, 0, b"12345678"))
            peer.send(frames.frame(frames.PING, ACK, 0, b"not ours"))
            peer.greet(header_table_size=0)
        answer_all(
            peer, [frame for frame in peer.seen if frame.kind == DATA] if pinged(found) else []
        )

    def pinged(found: list[Frame]) -> bool:
        return any(frame.kind == frames.PING for frame in found)

    rig = Rig(greeting(script))
    assert rig.run().codes == {"OK": 1}
    seen = rig.peers[0].seen
    assert [each.payload for each in seen if each.kind == frames.PING] == [b"12345678"]
    assert len([each for each in seen if each.kind == frames.SETTINGS and each.flags & ACK]) == 2


def test_no_more_streams_are_open_than_the_server_allows() -> None:
    most = 0

    def script(peer: Peer, found: list[Frame]) -> None:
        nonlocal most
        ended = {each.stream for each in peer.seen} & answered
        open_now = [stream for stream in started(peer.seen) if stream not in ended]
        most = max(most, len(open_now))
        for stream in open_now:
            answered.add(stream)
            peer.answer(stream)

    answered: set[int] = set()
    rig = Rig(
        greeting(script, max_concurrent_streams=3), concurrency=10, requests=40, connections=1
    )
    assert rig.run().codes == {"OK": 40}
    assert most == 3


def test_requests_that_a_leaving_server_did_not_see_are_sent_again_elsewhere() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is not rig.peers[0]:
            answer_all(peer, found)
        elif finished(found):
            assert finished(found) == [1, 3, 5, 7]
            peer.go_away(3)
            peer.answer(3)
            peer.answer(1)

    rig = Rig(greeting(script), step=0.01, concurrency=4, requests=6, connections=1)
    assert rig.run().codes == {"OK": 6}
    assert len(rig.peers) == 2
    assert finished(rig.peers[0].seen) == [1, 3, 5, 7]
    # Two that were not seen, and the two that came after the answers.
    assert finished(rig.peers[1].seen) == [1, 3, 5, 7]
    assert rig.peers[0].closed


def test_server_that_only_goes_away_is_not_hammered() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if finished(found):
            peer.go_away(0)

    rig = Rig(greeting(script), step=0.01, timeout=2.0)
    assert rig.run().codes == {"DEADLINE_EXCEEDED": 1}
    # Pauses of 0.05, 0.1, 0.2, 0.4, 0.8 s and more.
    assert len(rig.peers) <= 7


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


def violations() -> dict[str, bytes]:
    pushed = frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4))
    encoder = hpack.Encoder()
    encoder.encode(OK_TRAILERS)
    return {
        "push": pushed,
        "no headers to continue": frames.frame(frames.CONTINUATION, 0, 1, b""),
        "interrupted headers": frames.frame(HEADERS, 0, 1, b"") + frames.frame(DATA, 0, 1, b"x"),
        "too much padding": frames.frame(DATA, frames.PADDED, 1, b"\x09x"),
        "no padding": frames.frame(DATA, frames.PADDED, 1, b""),
        "compressed": frames.frame(DATA, 0, 1, b"\1\0\0\0\1x"),
        "short reset": frames.frame(frames.RST_STREAM, 0, 1, b"\0"),
        "short goaway": frames.frame(frames.GOAWAY, 0, 0, bytes(4)),
        "window": frames.frame(frames.WINDOW_UPDATE, 0, 0, bytes(4)),
        "table": frames.frame(HEADERS, END_HEADERS, 1, encoder.encode(OK_TRAILERS)),
        "frame size": frames.start(2**23, DATA, 0) + (1).to_bytes(4),
    }


@pytest.mark.parametrize("name", violations())
def test_broken_protocol_fails_what_was_in_flight_and_the_next_go_elsewhere(name: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is not rig.peers[0] or len(finished(peer.seen)) < 2:
            answer_all(peer, found)
        elif finished(found):
            peer.send(violations()[name].replace((1).to_bytes(4), (3).to_bytes(4)))

    rig = Rig(greeting(script), requests=4)
    assert rig.run().codes == {"OK": 3, "INTERNAL": 1}
    assert len(rig.peers) == 2


def test_lost_connection_fails_what_was_in_flight_and_is_replaced() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is not rig.peers[0] or len(finished(peer.seen)) < 3:
            answer_all(peer, found)
        else:
            peer.hang_up()

    rig = Rig(greeting(script), requests=6)
    assert rig.run().codes == {"OK": 5, "UNAVAILABLE": 1}
    assert len(rig.peers) == 2


def test_refused_connection_fails_every_request_after_a_pause() -> None:
    rig = Rig(answer_all, step=0.01, concurrency=2, requests=6, connections=1)
    rig.wires.refuse = True
    samples = rig.run()
    assert samples.codes == {"UNAVAILABLE": 6}
    # Pauses of 0.05 and 0.1 s between three attempts.
    assert samples.ended - samples.started >= 0.15


def test_next_address_is_tried_before_anything_fails() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is rig.peers[0]:
            peer.hang_up()
        else:
            greeting(answer_all)(peer, found)

    rig = Rig(script, requests=3)
    rig.addresses *= 2
    assert rig.run().codes == {"OK": 3}


def test_connection_is_replaced_before_its_streams_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(greeting(answer_all), requests=4)
    opened = rig.wires.open

    def nearly_used_up(*arguments: object) -> object:
        wire = opened(*arguments)  # type: ignore[arg-type]
        if len(rig.peers) == 1:
            wire.connection._next = MAX_STREAM - 2
        return wire

    monkeypatch.setattr(rig.wires, "open", nearly_used_up)
    assert rig.run().codes == {"OK": 4}
    assert finished(rig.peers[0].seen) == [MAX_STREAM - 2, MAX_STREAM]
    assert finished(rig.peers[1].seen) == [1, 3]


def test_request_without_an_answer_is_given_up_and_reset() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for frame in found:
            if frame.kind == frames.RST_STREAM:
                peer.answer(frame.stream)  # too late
        answer_all(peer, [frame for frame in found if frame.stream != 1])

    rig = Rig(greeting(script), step=0.01, requests=3, timeout=0.5)
    samples = rig.run()
    assert samples.codes == {"OK": 2, "DEADLINE_EXCEEDED": 1}
    resets = [frame for frame in rig.peers[0].seen if frame.kind == frames.RST_STREAM]
    assert [(frame.stream, frame.payload) for frame in resets] == [
        (1, ErrorCode.CANCEL.to_bytes(4))
    ]
    assert 0.5 <= samples.ended - samples.started < 0.6


def test_request_that_waits_for_a_connection_is_given_up_too() -> None:
    samples = Rig(lambda *_: None, step=0.01, requests=2, timeout=0.5).run()
    assert samples.codes == {"DEADLINE_EXCEEDED": 2}


def test_server_may_send_as_much_as_it_likes() -> None:
    class Sink:
        def data(self, data: bytes) -> None: ...

        def ended(self, code: str) -> None: ...

        def unprocessed(self) -> None: ...

    connection = Connection(credit=10_000)
    connection.receive(frames.settings({}))
    stream = connection.open(b"block", Sink())
    connection.outbox.parts.clear()
    for _ in range(7):
        connection.receive(frames.frame(DATA, 0, stream, bytes(3000)))
    widened = frames.frame(frames.WINDOW_UPDATE, 0, 0, (12_000).to_bytes(4))
    assert connection.outbox.parts == [widened]
