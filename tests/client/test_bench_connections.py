from __future__ import annotations

import hpack
import pytest
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.frames import (
    DATA,
    END_HEADERS,
    HEADERS,
    MAX_STREAM,
    ErrorCode,
)
from inferd_client.bench.fast.messages import prefixed

from tests.client.bench_peer import (
    OK_TRAILERS,
    Frame,
    Peer,
    Rig,
    answer_all,
    finished,
    greeting,
    is_hello,
    started,
)


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


def test_part_of_an_answer_that_a_leaving_server_disowns_is_forgotten() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is not rig.peers[0]:
            answer_all(peer, found)
        elif finished(found):
            peer.send(frames.frame(DATA, 0, 1, prefixed(b"answer")[:7]))
            peer.go_away(0)

    rig = Rig(greeting(script), step=0.01, requests=2)
    assert rig.run().codes == {"OK": 2}


def test_nobody_connects_again_when_nothing_is_left_to_send() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        answer_all(peer, found)
        if finished(found):
            peer.go_away(MAX_STREAM)

    rig = Rig(greeting(script))
    assert rig.run().codes == {"OK": 1}
    assert len(rig.peers) == 1


def test_server_that_only_goes_away_is_not_hammered() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if finished(found):
            peer.go_away(0)

    rig = Rig(greeting(script), step=0.01, timeout=2.0)
    assert rig.run().codes == {"DEADLINE_EXCEEDED": 1}
    # Pauses of 0.05, 0.1, 0.2, 0.4, 0.8 s and more.
    assert len(rig.peers) <= 7


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
