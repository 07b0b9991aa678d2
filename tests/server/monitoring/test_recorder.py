"""The recorder writes whole parts, bounded, and goes on when it cannot write."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from inferd.recording import NPZ, Recorded, part_name, read_part
from inferd_server.monitoring.parts import Parts
from inferd_server.monitoring.recorder import Recorder, beyond, make_recorder
from inferd_server.monitoring.samples import Sample
from inferd_server.settings.monitoring import MonitoringSettings
from inferd_store.errors import StoreError, StoreFull, Unreachable
from inferd_store.local import LocalObjects

from tests.fakes.clock import FakeClock

PATIENCE = 10.0
KILOBYTES = np.zeros(1024, np.uint8)


class FaultyObjects(LocalObjects):
    """A folder that cannot be written while a test says so, or holds whoever writes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.error: StoreError | None = None
        self.writing = threading.Event()
        self.release = threading.Event()
        self.release.set()

    def put(self, key: str, data: bytes, etag: str) -> None:
        self.writing.set()
        self.release.wait()
        if self.error is not None:
            raise self.error
        super().put(key, data, etag)


def sample(at: float = 0.0, model: str = "m", size: int = 1) -> Sample:
    rows = np.concatenate([KILOBYTES] * size)
    return Sample(model, "1", f"{at}", at, {"x": rows}, {"y": KILOBYTES})


@contextmanager
def recording(
    folder: Path, clock: Callable[[], float] | None = None, **settings: object
) -> Iterator[tuple[Recorder, FaultyObjects]]:
    wanted = {"record_format": "npz", "record_part_bytes": 8192, **settings}
    objects = FaultyObjects(folder)
    found = MonitoringSettings.model_validate(wanted)
    recorder = Recorder(found, objects, "host-1", bytes(32), clock or FakeClock())
    recorder.start()
    try:
        yield recorder, objects
    finally:
        objects.release.set()
        assert recorder.close(PATIENCE)


def parts(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.npz"))


def read(folder: Path) -> list[Recorded]:
    return [one for key in parts(folder) for one in read_part((folder / key).read_bytes(), NPZ)]


def counted(recorder: Recorder, name: str) -> float:
    return sum(v for (key, *_), v in recorder.counters().items() if key == f"inferd_{name}_total")


def test_full_parts_are_written_and_the_rest_when_it_closes(tmp_path: Path) -> None:
    with recording(tmp_path) as (recorder, _):
        for index in range(10):
            recorder(sample(index))
    assert sorted(one.at for one in read(tmp_path)) == list(range(10))
    # Three kilobytes each, so that the third fills a part of eight.
    assert [part_name(key).requests for key in parts(tmp_path)] == [3, 3, 3, 1]  # type: ignore[union-attr]
    assert counted(recorder, "recorded_samples") == 10
    assert counted(recorder, "recording_parts") == 4
    total = sum(path.stat().st_size for path in tmp_path.rglob("*.npz"))
    assert counted(recorder, "recording_bytes") == total
    assert not list((tmp_path / "tmp").iterdir())


def test_a_part_holds_one_model_in_the_order_in_which_the_requests_came(tmp_path: Path) -> None:
    with recording(tmp_path, record_part_bytes=2**20) as (recorder, _):
        for at, model in ((3.0, "b"), (2.0, "a"), (1.0, "b")):
            recorder(sample(at, model))
    assert [key.split("/")[0] for key in parts(tmp_path)] == ["a", "b"]
    assert [(one.model, one.at) for one in read(tmp_path)] == [("a", 2.0), ("b", 1.0), ("b", 3.0)]


def test_a_part_is_due_when_it_is_full_or_old_or_too_much_is_held() -> None:
    held = Parts(1000, 60.0)
    one = Recorded("m", "1", "", 0.0, {}, {})
    assert held.add(one, 999, 5.0)
    assert (held.due(64.9), held.wait(64.9)) == (None, pytest.approx(0.1))
    old = held.due(65.0)
    assert old is not None
    assert (old.requests, old.nbytes) == ([one], 999)
    held.written(old)
    assert (held.due(99.0), held.wait(99.0)) == (None, None)
    assert held.add(one, 1000, 99.0)
    assert held.wait(99.0) == 0.0
    full = held.due(99.0)
    assert full is not None
    # What is being written counts until it is written.
    assert [held.add(one, 1000, 99.0) for _ in range(4)] == [True, True, True, False]
    held.written(full)
    assert held.add(one, 1000, 99.0)


def test_of_many_models_the_largest_part_is_due_before_all_are_held() -> None:
    held = Parts(1000, 60.0)
    for index in range(5):
        assert held.add(Recorded(f"m{index}", "1", "", 0.0, {}, {}), 390 + index, 0.0)
    assert held.due(0.0) is None
    assert held.add(Recorded("m3", "1", "", 0.0, {}, {}), 50, 0.0)
    part = held.due(0.0)
    assert part is not None
    assert part.version == ("m3", "1")


def test_an_old_part_is_written_though_nothing_more_comes(tmp_path: Path) -> None:
    import time

    with recording(tmp_path, time.monotonic, record_part_s=0.01) as (recorder, objects):
        recorder(sample())
        assert objects.writing.wait(PATIENCE)
    assert len(read(tmp_path)) == 1


def test_a_full_disk_drops_and_counts_and_tells_once_a_minute_and_recording_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    with recording(tmp_path, clock, record_part_s=1) as (recorder, objects):
        objects.error = StoreFull("there is no room left")
        with caplog.at_level(logging.ERROR):
            for _ in range(5):
                write_one(recorder, objects)
            clock.advance(61)
            write_one(recorder, objects)
        assert [record.getMessage() for record in caplog.records] == [
            "requests could not be recorded"
        ] * 2
        assert "there is no room left" in str(caplog.records[0].__dict__)
        assert counted(recorder, "recording_dropped") == 6
        objects.error = None
        write_one(recorder, objects)
    assert len(read(tmp_path)) == 1


def write_one(recorder: Recorder, objects: FaultyObjects, one: Sample | None = None) -> None:
    """Have one sample written, or given up, before the next one comes."""
    before = sum(counted(recorder, name) for name in ("recorded_samples", "recording_dropped"))
    objects.writing.clear()
    recorder(one or sample(size=8))
    assert objects.writing.wait(PATIENCE)
    with recorder._changed:
        assert recorder._changed.wait_for(lambda: not recorder._parts._held, PATIENCE)
    after = sum(counted(recorder, name) for name in ("recorded_samples", "recording_dropped"))
    assert after == before + 1


def test_a_store_that_hangs_holds_nobody_and_what_is_too_much_is_dropped(tmp_path: Path) -> None:
    with recording(tmp_path) as (recorder, objects):
        objects.release.clear()
        recorder(sample(size=8))
        assert objects.writing.wait(PATIENCE)
        for _ in range(10):
            recorder(sample(size=6))
        # Four parts of eight kilobytes are held at most.
        assert counted(recorder, "recording_dropped") == 8
        objects.error = Unreachable("gone")
        objects.release.set()
    assert counted(recorder, "recording_dropped") == 11
    assert read(tmp_path) == []


def test_a_recorder_that_cannot_end_is_not_waited_for(tmp_path: Path) -> None:
    with recording(tmp_path) as (recorder, objects):
        objects.release.clear()
        recorder(sample())
        assert not recorder.close(0.01)
        recorder(sample())
        assert counted(recorder, "recording_dropped") == 1


def test_the_oldest_parts_are_removed_beyond_the_bound_those_of_others_too(tmp_path: Path) -> None:
    other = tmp_path / "other" / "1" / "19600101T000000.000000Z-host-9-000001-1.npz"
    other.parent.mkdir(parents=True)
    other.write_bytes(bytes(5000))
    (tmp_path / "notes.txt").write_text("not the recorder's")
    with recording(tmp_path, record_max_bytes=30_000) as (recorder, objects):
        for at in range(10):
            write_one(recorder, objects, sample(at, size=8))
    assert not other.exists()
    assert (tmp_path / "notes.txt").exists()
    kept = [one.at for one in read(tmp_path)]
    assert kept == [7.0, 8.0, 9.0]


def test_the_youngest_part_stays_however_large_it_is() -> None:
    assert beyond(10, []) == []
    assert beyond(10, [("a", 5), ("b", 5)]) == []
    assert beyond(10, [("a", 5), ("b", 5), ("c", 1)]) == ["a"]
    assert beyond(10, [("a", 5), ("b", 5), ("c", 50)]) == ["a", "b"]


def test_the_folder_of_a_recording_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    recorder = make_recorder(MonitoringSettings(record_to=f"{tmp_path}/a/b"), FakeClock())
    assert recorder is not None
    assert recorder.close(PATIENCE)
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert make_recorder(MonitoringSettings(), FakeClock()) is None
