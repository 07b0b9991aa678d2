"""Keys, frames, alarms and the breaker, each by itself."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.engine import EngineError
from inferd_engines.model_files import ModelFiles
from inferd_server.batching.timers import SPARE, Timers
from inferd_server.cache import frame
from inferd_server.cache.breaker import Breaker
from inferd_server.cache.key import KeyBase, Owner
from inferd_server.models.config import ModelConfig, ResponseCacheConfig
from inferd_server.models.digest import answers_digest

from tests.fakes.clock import FakeClock

OWNER = Owner("model", 1, "digest")
DESCRIBED = st.lists(st.tuples(st.text(max_size=3), st.integers(0, 3)), max_size=3)
ELEMENTS = st.lists(st.binary(max_size=4), max_size=3)
PARTS = st.tuples(
    st.builds(Owner, st.text(max_size=3), st.integers(1, 3), st.sampled_from(["", "x"])),
    DESCRIBED,
    ELEMENTS,
)


@given(PARTS, PARTS)
def test_keys_are_equal_where_everything_is(
    first: tuple[Owner, list[tuple[str, int]], list[bytes]],
    second: tuple[Owner, list[tuple[str, int]], list[bytes]],
) -> None:
    keys = [KeyBase(owner, described).key(data) for owner, described, data in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


def test_a_base_makes_the_same_key_each_time_from_views_and_bytes() -> None:
    base = KeyBase(OWNER, [("INPUT0", "FP32", (1, 4))])
    assert base.key([b"ab", b"c"]) == base.key([memoryview(b"ab"), bytearray(b"c")])
    assert base.key([b"ab", b"c"]) != base.key([b"a", b"bc"])


@given(st.binary(max_size=50), st.data())
def test_a_damaged_frame_is_no_answer(value: bytes, data: st.DataObject) -> None:
    packed = frame.pack(b"key", value)
    assert frame.unpack(b"key", packed) == value
    assert frame.unpack(b"another", packed) is None
    index = data.draw(st.integers(0, len(packed) - 1))
    flipped = bytearray(packed)
    flipped[index] ^= 1 << data.draw(st.integers(0, 7))
    assert frame.unpack(b"key", bytes(flipped)) is None
    assert frame.unpack(b"key", packed[:index]) is None
    assert frame.unpack(b"key", packed + b"\x00") is None


def test_alarms_ring_in_the_order_of_their_times_and_not_when_cancelled() -> None:
    clock, rung = FakeClock(), list[int]()
    alarms = Timers(clock, threaded=False)
    kept = {n: alarms.at(float(n), lambda n=n: rung.append(n)) for n in (3, 1, 2, 9)}
    kept[2].cancel()
    kept[2].cancel()
    clock.advance(3.0)
    assert alarms.ring() == 9.0
    assert rung == [1, 3]
    kept[1].cancel()
    assert alarms.ring() == 9.0


def test_cancelled_alarms_do_not_pile_up() -> None:
    alarms = Timers(FakeClock(), threaded=False)
    for _ in range(100 * SPARE):
        alarms.at(1e9, lambda: None).cancel()
    assert len(alarms._heap) <= 2 * SPARE


def test_an_alarm_that_fails_does_not_keep_the_next_from_ringing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rung = list[int]()
    alarms = Timers(FakeClock(), threaded=False)
    alarms.at(0.0, lambda: 1 // 0)
    alarms.at(0.0, lambda: rung.append(1))
    assert alarms.ring() is None
    assert rung == [1]
    assert "an alarm failed" in caplog.text


def test_alarms_ring_by_themselves_an_earlier_one_than_the_first_too() -> None:
    alarms, rung = Timers(time.monotonic), threading.Event()
    alarms.at(time.monotonic() + 3600.0, lambda: None)
    alarms.at(0.0, rung.set)
    assert rung.wait(30.0)
    alarms.close()
    alarms.at(0.0, lambda: None)


def test_successes_make_a_breaker_forget_failures() -> None:
    told: list[str] = []
    breaker = Breaker(2, 5.0, FakeClock(), told.append)
    for _ in range(3):
        breaker.failed("once")
        breaker.succeeded()
    assert breaker.allows()
    assert told == []


def test_a_breaker_allows_one_attempt_in_a_rest_however_long_it_takes() -> None:
    clock = FakeClock()
    breaker = Breaker(1, 5.0, clock, lambda _: None)
    breaker.failed("gone")
    clock.advance(5.0)
    assert [breaker.allows(), breaker.allows()] == [True, False]
    clock.advance(5.0)
    assert [breaker.allows(), breaker.allows()] == [True, False]


def test_the_digest_is_of_what_was_read_its_names_and_the_options(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "weights/data").write_bytes(b"numbers")

    def digest(name: str, **options: str) -> str:
        files = ModelFiles(tmp_path / "model.onnx")
        files.read(name)
        kept = ModelConfig(response_cache=ResponseCacheConfig(), engine_options=options)
        return answers_digest(files, kept)

    seen = [digest("weights/data"), digest("weights/data"), digest("weights/data", a="b")]
    (tmp_path / "weights/data").write_bytes(b"NUMBERS")
    seen.append(digest("weights/data"))
    (tmp_path / "weights/data").rename(tmp_path / "weights/other")
    seen.append(digest("weights/other"))
    assert len(set(seen)) == 4
    assert all(seen)


def test_the_digest_is_of_the_bytes_that_were_loaded_whatever_lies_there_now(
    tmp_path: Path,
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    kept = ModelConfig(response_cache=ResponseCacheConfig())
    files = ModelFiles(path)
    files.content()
    before = answers_digest(files, kept)
    path.write_bytes(b"GRAPH")
    assert answers_digest(files, kept) == before
    assert files.content() == b"graph"


def test_files_of_two_generations_are_never_put_together(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    (tmp_path / "weights").write_bytes(b"numbers")
    files = ModelFiles(path)
    files.content()
    path.write_bytes(b"another graph")
    with pytest.raises(EngineError, match=r"model\.onnx changed while the model was loaded"):
        files.read("weights")
