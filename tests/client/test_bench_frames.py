from __future__ import annotations

import itertools
import math

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd_client.bench.fast import frames
from inferd_client.bench.fast.frames import FrameReader, ProtocolError, Setting
from inferd_client.bench.fast.header_block import StatusReader, request_block
from inferd_client.bench.fast.messages import MessageReader, prefixed

from tests.client.bench_peer import block

FRAMES = st.lists(
    st.tuples(
        st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**31 - 1), st.binary(max_size=40)
    ),
    max_size=8,
)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[first:last] for first, last in itertools.pairwise(edges)]


@settings(deadline=None)
@given(FRAMES, st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_are_read_however_the_bytes_are_cut(
    sent: list[tuple[int, int, int, bytes]], cuts: list[int]
) -> None:
    reader = FrameReader()
    data = b"".join(frames.frame(*frame) for frame in sent)
    found = [part for piece in pieces(data, cuts) for part in reader.frames(piece)]
    assert joined(found, [len(payload) for *_, payload in sent]) == sent


def joined(
    parts: list[tuple[int, int, int, bytes]], lengths: list[int]
) -> list[tuple[int, int, int, bytes]]:
    """Put frames together that came in parts; only DATA without padding may."""
    waiting, whole = iter(parts), []
    for length in lengths:
        kind, flags, stream, payload = next(waiting)
        while len(payload) < length:
            assert (kind, flags) == (frames.DATA, 0)
            _, flags, same, part = next(waiting)
            assert same == stream
            assert not flags & frames.PADDED
            payload += part
        whole.append((kind, flags, stream, payload))
    assert next(waiting, None) is None
    return whole


def test_data_comes_through_before_its_frame_is_complete() -> None:
    reader = FrameReader()
    data = frames.frame(frames.DATA, frames.END_STREAM, 1, b"abcdef")
    cut = [data[:9], data[9:12], data[12:] + data[:10]]
    assert [list(reader.frames(piece)) for piece in cut] == [
        [(frames.DATA, 0, 1, b"")],
        [(frames.DATA, 0, 1, b"abc")],
        [(frames.DATA, frames.END_STREAM, 1, b"def"), (frames.DATA, 0, 1, b"a")],
    ]


def test_reserved_bit_of_a_stream_is_no_part_of_its_number() -> None:
    (found,) = FrameReader().frames(frames.frame(0, 0, 2**31 + 5))
    assert found[2] == 5


def test_frame_above_what_we_allow_is_an_error_before_it_is_there() -> None:
    with pytest.raises(ProtocolError) as raised:
        list(FrameReader().frames(frames.start(2**22 + 1, 0, 0) + bytes(4)))
    assert raised.value.code == frames.ErrorCode.FRAME_SIZE_ERROR


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_messages_are_read_however_the_bytes_are_cut(sent: list[bytes], cuts: list[int]) -> None:
    reader = MessageReader()
    data = b"".join(map(prefixed, sent))
    found = [message for piece in pieces(data, cuts) for message in reader.feed(piece)]
    assert found == sent
    assert reader.empty


@settings(deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_message_that_nobody_wants_is_counted_and_its_start_kept(
    sent: list[bytes], cuts: list[int]
) -> None:
    reader = MessageReader(lambda start: start[0] < 128)
    data = b"".join(map(prefixed, sent))
    found = [message for piece in pieces(data, cuts) for message in reader.feed(piece)]
    assert len(found) == len(sent)
    for message, whole in zip(found, sent, strict=True):
        wanted = whole and whole[0] < 128
        assert message == whole if wanted else whole.startswith(message)
        assert bool(message) == bool(whole)


def test_part_that_looks_like_a_message_is_still_a_part() -> None:
    reader, inner = MessageReader(), prefixed(b"x")
    whole = prefixed(inner + b"y")
    assert reader.feed(whole[:5]) == []
    assert reader.feed(inner) == []
    assert reader.feed(b"y") == [inner + b"y"]


def test_part_of_a_message_is_no_message() -> None:
    reader = MessageReader()
    assert reader.feed(prefixed(b"abc")[:-1]) == []
    assert not reader.empty


def test_compressed_message_is_an_error() -> None:
    with pytest.raises(ProtocolError, match="compressed"):
        MessageReader().feed(b"\1" + prefixed(b"abc")[1:])


def test_settings_cut_off_are_an_error() -> None:
    with pytest.raises(ProtocolError, match="cut off"):
        list(frames.settings_of(frames.settings({Setting.ENABLE_PUSH: 0})[9:-1]))


@pytest.mark.parametrize(
    ("timeout", "shown"),
    [(60.0, "60000000u"), (0.0000001, "1u"), (3600.0, "3600000m"), (2e5, "200000S"), (1e9, None)],
)
def test_headers_of_a_request_are_those_of_grpc(timeout: float, shown: str | None) -> None:
    fields = dict(hpack.Decoder().decode(request_block("a.b:80", "/s/M" * 50, timeout)))
    assert fields == {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/s/M" * 50,
        ":authority": "a.b:80",
        "te": "trailers",
        "content-type": "application/grpc",
        "user-agent": "inferd-bench",
        "grpc-timeout": shown or "277778H",
    }


def test_request_without_a_timeout_says_nothing_of_one() -> None:
    fields = dict(hpack.Decoder().decode(request_block("a:1", "/s/M", math.inf)))
    assert "grpc-timeout" not in fields


@pytest.mark.parametrize("huffman", [True, False])
@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"grpc-status": "0"}, "OK"),
        ({"grpc-status": "5", "grpc-message": "no such model", "inferd-error": "X"}, "NOT_FOUND"),
        ({":status": "200", "grpc-status": "12"}, "UNIMPLEMENTED"),
        ({"grpc-status": "99"}, "UNKNOWN"),
        ({"grpc-status": "x"}, "UNKNOWN"),
        ({":status": "200", "content-type": "application/grpc"}, None),
        ({":status": "103"}, None),
        ({":status": "503"}, "UNAVAILABLE"),
        ({":status": "404"}, "UNIMPLEMENTED"),
        ({":status": "418"}, "UNKNOWN"),
    ],
)
def test_status_is_read_from_headers(
    fields: dict[str, str], code: str | None, huffman: bool
) -> None:
    reader = StatusReader()
    encoded = block(*fields.items(), huffman=huffman)
    assert [reader.code(encoded), reader.code(encoded)] == [code, code]


def test_status_is_right_after_more_blocks_than_are_remembered() -> None:
    reader = StatusReader()
    for number in range(3000):
        code = reader.code(block(("grpc-status", "8"), ("grpc-message", str(number))))
        assert code == "RESOURCE_EXHAUSTED"
    assert reader.code(block(("grpc-status", "0"))) == "OK"


STATUSES = {"0": "OK", "5": "NOT_FOUND", "8": "RESOURCE_EXHAUSTED"}
ANSWERS = st.tuples(
    st.sampled_from(sorted(STATUSES)),
    # Enough text for a table that turns over, and few enough that blocks come again.
    st.sampled_from(["", "a" * 50, "b" * 90, "c" * 5000]),
    # Room for everything, for some, for nothing.
    st.sampled_from([4096, 4096, 4096, 200, 0]),
)


@settings(deadline=None)
@given(st.lists(ANSWERS, max_size=20))
def test_status_is_right_whatever_the_server_keeps_in_the_table(
    answers: list[tuple[str, str, int]],
) -> None:
    encoder, reader = hpack.Encoder(), StatusReader()
    for status, text, size in answers:
        encoder.header_table_size = size
        fields = [("grpc-status", status), ("grpc-message", text)]
        assert reader.code(encoder.encode(fields)) == STATUSES[status]


def test_same_bytes_mean_another_status_once_the_table_has_another_entry() -> None:
    encoder, reader = hpack.Encoder(), StatusReader()
    # Room for one entry.
    encoder.header_table_size = 50
    blocks = [encoder.encode([("grpc-status", status)]) for status in "00055500"]
    assert blocks[2] == blocks[5]
    assert [reader.code(each) for each in blocks] == [*["OK"] * 3, *["NOT_FOUND"] * 3, *["OK"] * 2]


def test_size_of_the_table_is_followed_each_time_that_it_is_stated() -> None:
    reader = StatusReader()
    grow, shrink, found = b"\x3f\xe1\x1f\x88", b"\x20\x88", b"\x88"
    for each in (grow, found, shrink, grow):
        assert reader.code(each) is None
    insert = b"\x40\x0bgrpc-status\x015"
    assert [reader.code(insert), reader.code(b"\xbe")] == ["NOT_FOUND", "NOT_FOUND"]


def test_headers_of_a_table_that_nobody_built_are_an_error() -> None:
    encoder = hpack.Encoder()
    encoder.encode([("grpc-status", "0")])
    with pytest.raises(ProtocolError, match="headers"):
        StatusReader().code(encoder.encode([("grpc-status", "0")]))
