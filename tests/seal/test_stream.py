"""One sealed file: what comes back, and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_seal.errors import Reordered, SealError, Tampered, Truncated
from inferd_seal.stream import (
    MAGIC,
    TAG,
    Header,
    new_header,
    read_header,
    seal_stream,
    unseal,
)

KEY = bytes(32)
PLAIN = bytes(range(256)) * 10
CHUNK = 512


def sealed(plain: bytes = PLAIN, chunk: int = CHUNK) -> bytes:
    header = replace(new_header("m", 1, "model.onnx", len(plain), "seal"), chunk=chunk)
    return b"".join(seal_stream(io.BytesIO(plain), header, KEY))


def opened(data: bytes, key: bytes = KEY) -> bytes:
    source = io.BytesIO(data)
    return unseal(source, read_header(source, "model.onnx"), key)


def body(data: bytes) -> int:
    """Return where the chunks begin."""
    return len(MAGIC) + 4 + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "big")


@given(st.binary(max_size=70), st.integers(1, 33))
def test_what_is_sealed_comes_back_whatever_its_size(plain: bytes, chunk: int) -> None:
    assert opened(sealed(plain, chunk)) == plain


def test_a_source_that_gives_little_at_a_time_is_read_whole() -> None:
    class Slow(io.BytesIO):
        def read(self, count: int | None = -1, /) -> bytes:
            return super().read(min(count or 0, 7))

    source = Slow(sealed())
    assert unseal(source, read_header(source, "model.onnx"), KEY) == PLAIN


@given(st.data())
def test_one_changed_bit_anywhere_is_refused(data: st.DataObject) -> None:
    content = bytearray(sealed())
    place = data.draw(st.integers(0, len(content) * 8 - 1))
    content[place // 8] ^= 1 << place % 8
    with pytest.raises(SealError):
        opened(bytes(content))


@given(st.integers(1, len(PLAIN)))
def test_a_file_that_ends_early_is_truncated(missing: int) -> None:
    with pytest.raises(Truncated):
        opened(sealed()[:-missing])


def test_a_file_cut_between_two_parts_whose_size_is_claimed_anew_is_refused() -> None:
    content, source = sealed(), io.BytesIO(sealed())
    told = read_header(source, "model.onnx")
    shorter = replace(told, size=CHUNK)
    forged = b"".join(seal_stream(io.BytesIO(bytes(CHUNK)), shorter, bytes(32)))
    begin = body(content)
    cut = forged[: body(forged)] + content[begin : begin + CHUNK + TAG]
    with pytest.raises(Tampered):
        opened(cut)


@pytest.mark.parametrize("pair", [(0, 1), (1, 3)])
def test_parts_in_another_order_are_told(pair: tuple[int, int]) -> None:
    content = bytearray(sealed())
    one, other = (body(content) + index * (CHUNK + TAG) for index in pair)
    first, second = content[one : one + CHUNK + TAG], content[other : other + CHUNK + TAG]
    content[one : one + CHUNK + TAG], content[other : other + CHUNK + TAG] = second, first
    with pytest.raises(Reordered, match=f"part {pair[1] + 1} .* place of part {pair[0] + 1}"):
        opened(bytes(content))


def test_bytes_behind_the_end_are_refused() -> None:
    with pytest.raises(Tampered, match="behind its end"):
        opened(sealed() + b"x")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(Tampered):
        opened(sealed(), bytes(31) + b"\1")


def test_a_header_that_claims_a_huge_file_takes_no_memory() -> None:
    content = sealed()
    told = content[len(MAGIC) + 4 : body(content)]
    forged = told.replace(b'"size":2560', b'"size":%d' % 2**60)
    with pytest.raises(Tampered):
        opened(MAGIC + len(forged).to_bytes(4, "big") + forged + content[body(content) :])


@pytest.mark.parametrize(
    "content", [b"", b"onnx", MAGIC, MAGIC + b"\xff" * 9, MAGIC + b"\0\0\0\2{}"]
)
def test_what_is_no_sealed_file_is_refused(content: bytes) -> None:
    with pytest.raises(SealError):
        opened(content)


@pytest.mark.parametrize("change", [{"chunk": 0}, {"salt": "00"}, {"version": "1"}, {"size": -1}])
def test_a_header_of_impossible_values_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="value"):
        Header(
            **{
                "model": "m",
                "version": 1,
                "file": "f",
                "size": 1,
                "seal": "s",
                "salt": "00" * 32,
                **change,
            }
        )  # type: ignore[arg-type]


def test_two_files_of_one_content_have_nothing_in_common() -> None:
    one, other = sealed(), sealed()
    assert one[body(one) :] != other[body(other) :]
