from __future__ import annotations

import pytest
from inferd.oip.v2 import inference_pb2 as pb
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.connection import Connection
from inferd_client.bench.fast.frames import DATA, ErrorCode
from inferd_client.bench.fast.messages import MessageReader, prefixed
from inferd_client.bench.fast.stream import Stream

from tests.client.bench_peer import Frame, Peer, Rig, bodies, greeting, started

REQUEST = pb.ModelInferRequest(model_name="m").SerializeToString()
STREAM = {"stream": True, "request": REQUEST, "connections": 1}


def answer(ident: str, text: str = "m", error: str = "", name: str = "") -> bytes:
    response = pb.ModelStreamInferResponse(error_message=error)
    response.infer_response.CopyFrom(pb.ModelInferResponse(model_name=text, id=ident))
    if name:
        response.infer_response.parameters["inferd_error"].string_param = name
    return response.SerializeToString()


def asked(found: list[Frame], stream: int = 1) -> list[str]:
    """Return the ids of the requests among the frames."""
    messages = MessageReader().feed(bodies(found, stream))
    return [pb.ModelInferRequest.FromString(message).id for message in messages]


def test_requests_of_a_stream_are_all_out_at_once_and_told_apart_by_their_ids() -> None:
    batches: list[list[str]] = []

    def script(peer: Peer, found: list[Frame]) -> None:
        idents = asked(found)
        if idents:
            batches.append(idents)
        for ident in reversed(idents):
            peer.say(1, answer(ident))

    rig = Rig(greeting(script), concurrency=4, per_stream=4, requests=8, **STREAM)
    samples = rig.run()
    assert batches == [["1", "2", "3", "4"], ["4", "3", "2", "1"]]
    assert samples.codes == {"OK": 8}
    assert [started(peer.seen) for peer in rig.peers] == [[1]]


def test_latency_belongs_to_the_request_whose_id_the_answer_has() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        idents = asked(found)
        if idents == ["1", "2"]:
            peer.say(1, answer("2"))
        elif idents == ["2"]:
            # Request 1 has been out for longer than this one.
            peer.say(1, answer("2"))
            peer.say(1, answer("1"))

    rig = Rig(greeting(script), step=1e-3, concurrency=2, per_stream=2, requests=3, **STREAM)
    samples = rig.run()
    first, second, third = samples.latencies
    assert min(first, second) > 0
    assert third == pytest.approx(first + second)


def test_alone_on_its_stream_a_request_has_no_id() -> None:
    idents: list[str] = []

    def script(peer: Peer, found: list[Frame]) -> None:
        for stream in (1, 3):
            for ident in asked(found, stream):
                idents.append(ident)
                peer.say(stream, answer(""))

    rig = Rig(greeting(script), concurrency=2, requests=6, **STREAM)
    assert rig.run().codes == {"OK": 6}
    assert idents == [""] * 6
    assert started(rig.peers[0].seen) == [1, 3]


def test_error_in_the_stream_is_counted_and_the_stream_goes_on() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        for ident in asked(found):
            peer.say(1, answer(ident, error="full", name="QueueFull"))

    rig = Rig(greeting(script), concurrency=2, per_stream=2, requests=4, **STREAM)
    assert rig.run().codes == {"RESOURCE_EXHAUSTED": 4}
    assert started(rig.peers[0].seen) == [1]


@pytest.mark.parametrize(("status", "code"), [("0", "UNAVAILABLE"), ("8", "RESOURCE_EXHAUSTED")])
def test_end_of_the_stream_fails_what_is_out_and_opens_another(status: str, code: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if asked(found):
            peer.end(1, ("grpc-status", status))
        for ident in asked(found, 3):
            peer.say(3, answer(ident))

    rig = Rig(greeting(script), concurrency=3, per_stream=3, requests=9, **STREAM)
    assert rig.run().codes == {"OK": 6, code: 3}
    assert started(rig.peers[0].seen) == [1, 3]


def test_part_of_an_answer_is_forgotten_with_its_stream() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if asked(found):
            peer.send(frames.frame(DATA, 0, 1, prefixed(answer("1"))[:8]))
            peer.end(1, ("grpc-status", "8"))
        for ident in asked(found, 3):
            peer.say(3, answer(ident))

    rig = Rig(greeting(script), requests=3, **STREAM)
    assert rig.run().codes == {"OK": 2, "RESOURCE_EXHAUSTED": 1}


def test_window_of_a_stream_is_filled_up_for_what_came_on_it_alone() -> None:
    class NoLink:
        def submit(self, caller: object) -> None: ...

    connection = Connection(credit=1000)
    connection.receive(frames.settings({}))
    stream = Stream(NoLink(), None, b"block", None, alone=True)  # type: ignore[arg-type]
    for _ in range(2):
        stream.begin(connection)
        connection.outbox.parts.clear()
        stream.data(prefixed(bytes(2000))[:600])
        assert not connection.outbox.parts
        stream.ended("OK")
    stream.begin(connection)
    connection.outbox.parts.clear()
    stream.data(prefixed(bytes(2000))[:1000])
    widened = frames.frame(frames.WINDOW_UPDATE, 0, 5, (1000).to_bytes(4))
    assert connection.outbox.parts == [widened]


def test_stream_that_a_leaving_server_did_not_see_is_opened_elsewhere() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if peer is rig.peers[0]:
            if started(found):
                peer.go_away(0)
            return
        for ident in asked(found):
            peer.say(1, answer(ident))

    rig = Rig(greeting(script), step=0.01, concurrency=2, per_stream=2, requests=4, **STREAM)
    assert rig.run().codes == {"OK": 4}
    assert len(rig.peers) == 2


@pytest.mark.parametrize("ident", ["", "7"])
def test_answer_that_no_request_waits_for_fails_all_rather_than_one_of_them(ident: str) -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if asked(found):
            peer.say(1, answer(ident))

    rig = Rig(greeting(script), concurrency=2, per_stream=2, requests=2, **STREAM)
    assert rig.run().codes == {"INTERNAL": 2}


def test_answer_that_cannot_be_read_fails_all() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if asked(found):
            peer.say(1, b"\x12\xff")

    rig = Rig(greeting(script), concurrency=2, per_stream=2, requests=2, **STREAM)
    assert rig.run().codes == {"INTERNAL": 2}


def test_request_that_takes_too_long_ends_its_stream() -> None:
    def script(peer: Peer, found: list[Frame]) -> None:
        if asked(found) == ["1", "2"]:
            peer.say(1, answer("2"))
        for ident in asked(found, 3):
            peer.say(3, answer(ident))

    rig = Rig(
        greeting(script),
        step=0.01,
        concurrency=2,
        per_stream=2,
        requests=5,
        timeout=0.5,
        **STREAM,
    )
    # The second request of place 2 was out as well, and later.
    assert rig.run().codes == {"OK": 3, "DEADLINE_EXCEEDED": 1, "CANCELLED": 1}
    resets = [each for each in rig.peers[0].seen if each.kind == frames.RST_STREAM]
    assert [(each.stream, each.payload) for each in resets] == [(1, ErrorCode.CANCEL.to_bytes(4))]


def test_large_messages_wait_for_the_window_of_their_stream() -> None:
    request = pb.ModelInferRequest(raw_input_contents=[bytes(5000)]).SerializeToString()
    got: dict[int, MessageReader] = {1: MessageReader()}

    def script(peer: Peer, found: list[Frame]) -> None:
        size = len(bodies(found, 1))
        assert size <= 1000
        if size:
            peer.send(frames.frame(frames.WINDOW_UPDATE, 0, 1, size.to_bytes(4)))
        for frame in found:
            if frame.kind == DATA:
                for message in got[1].feed(frame.payload):
                    peer.say(1, answer(pb.ModelInferRequest.FromString(message).id))

    settings = STREAM | {"request": request}
    rig = Rig(
        greeting(script, initial_window_size=1000),
        concurrency=3,
        per_stream=3,
        requests=7,
        **settings,
    )
    assert rig.run().codes == {"OK": 7}


@pytest.mark.parametrize("per_stream", [1, 2])
def test_answers_unlike_the_first_are_counted_when_they_are_checked(per_stream: int) -> None:
    texts = iter(["m", "m", "other", "m", "m", "other"])

    def script(peer: Peer, found: list[Frame]) -> None:
        for ident in asked(found):
            peer.say(1, answer(ident, next(texts)))

    plan = STREAM | {"concurrency": per_stream, "per_stream": per_stream, "requests": 6}
    samples = Rig(greeting(script), check=True, **plan).run()
    assert (samples.codes, samples.different) == ({"OK": 6}, 2)
