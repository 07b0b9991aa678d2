"""A template hits only what the generated class would read alike."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inferd.oip.v2.inference_pb2 import ModelInferRequest
from inferd_server.inference.template import TemplateCache, learn, split

from tests.server.inference.alike import check_hit

NAMES = st.sampled_from(["", "m", "digits", "a" * 126, "b" * 200, "\xe9"])
PAYLOADS = st.lists(st.binary(max_size=6), max_size=3)


@st.composite
def requests(draw: st.DrawFn) -> ModelInferRequest:
    request = ModelInferRequest(
        model_name=draw(NAMES),
        model_version=draw(st.sampled_from(["", "1", "12"])),
        id=draw(st.sampled_from(["", "x", "yy", "z" * 130])),
        raw_input_contents=draw(PAYLOADS),
    )
    for name in draw(st.lists(st.sampled_from(["a", "b"]), max_size=2)):
        shape = draw(st.lists(st.integers(-1, 300), max_size=3))
        request.inputs.add(name=name, datatype="UINT8", shape=shape)
    if draw(st.booleans()):
        request.parameters["priority"].int64_param = draw(st.integers(0, 3))
    return request


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """Serialised requests, whole or joined, or with bytes changed."""
    parts = draw(st.lists(requests(), min_size=1, max_size=2))
    message = bytearray(b"".join(part.SerializeToString() for part in parts))
    for _ in range(draw(st.integers(0, 2))):
        if message:
            message[draw(st.integers(0, len(message) - 1))] = draw(st.integers(0, 255))
    return bytes(message)


@settings(max_examples=400)
@given(messages(), messages())
def test_whatever_hits_is_read_alike(first: bytes, second: bytes) -> None:
    check_hit(first, second)
    check_hit(first, first)


@settings(max_examples=400)
@given(messages(), st.data())
def test_a_message_that_differs_in_one_byte_is_read_alike_or_missed(
    first: bytes, data: st.DataObject
) -> None:
    changed = bytearray(first)
    if changed:
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    check_hit(first, bytes(changed))


def plain(identity: str, payload: bytes) -> bytes:
    request = ModelInferRequest(model_name="m", id=identity, raw_input_contents=[payload])
    request.inputs.add(name="a", datatype="UINT8", shape=[len(payload)])
    return request.SerializeToString()


def test_another_id_of_any_length_and_other_elements_hit() -> None:
    assert check_hit(plain("", b"123"), plain("", b"456"))
    assert check_hit(plain("", b"123"), plain("seven", b"456"))
    assert check_hit(plain("one", b"123"), plain("", b"456"))


def test_another_size_misses() -> None:
    assert not check_hit(plain("1", b"123"), plain("1", b"1234"))


@pytest.mark.parametrize(
    "extra",
    [
        ModelInferRequest(model_name="n"),
        ModelInferRequest(model_version="2"),
        ModelInferRequest(id="2"),
    ],
)
def test_a_second_name_version_or_id_is_not_learned(extra: ModelInferRequest) -> None:
    message = plain("1", b"123") + extra.SerializeToString()
    parts = split(message)
    assert parts is not None
    assert learn(message, parts[1], "known") is None


def kept(cache: TemplateCache[int], message: bytes) -> bool:
    parts = split(message)
    assert parts is not None
    return cache.find(message, parts) is not None


def add(cache: TemplateCache[int], message: bytes) -> None:
    parts = split(message)
    assert parts is not None
    template = learn(message, parts[1], 1)
    assert template is not None
    cache.add(message, parts, template)


def test_the_cache_is_bounded_and_the_oldest_goes_first() -> None:
    cache: TemplateCache[int] = TemplateCache(limit=4)
    sent = [plain("", bytes(size)) for size in range(1, 9)]
    for message in sent:
        add(cache, message)
    assert [kept(cache, message) for message in sent] == [False] * 4 + [True] * 4


def test_a_form_too_long_to_compare_cheaply_is_not_kept() -> None:
    cache: TemplateCache[int] = TemplateCache(longest=10)
    add(cache, plain("", b"1"))
    assert not kept(cache, plain("", b"1"))
