"""Plans on a disk without room: an error, nothing half there, and no harm to what is there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from inferd_engines.tensorrt.key import Gpu, Host, PlanKey, key_of
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.store import PlanStore

from tests.small_disk import small_disk

SIZE = 64 * 1024
HOST = Host("tensorrt", "11.1.0.2", "13.3", Gpu("NVIDIA H100", "9.0", 132))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of SIZE bytes."""
    with small_disk(tmp_path, SIZE) as place:
        yield place


def key(folder: Path, model: bytes) -> PlanKey:
    path = folder / "model.onnx"
    path.write_bytes(model)
    return key_of(path, HOST, BuildOptions())


def entries(disk: Path) -> list[str]:
    return sorted(path.name for path in disk.rglob("*"))


def test_a_plan_that_finds_no_room_leaves_nothing_behind(disk: Path, tmp_path: Path) -> None:
    store = PlanStore(disk)
    small, large = key(tmp_path, b"small"), key(tmp_path, b"large")
    store.publish(small, b"a plan", {})
    before = entries(disk)
    with pytest.raises(OSError, match="No space left"):
        store.publish(large, bytes(2 * SIZE), {})
    assert entries(disk) == before
    assert store.find(large) is None
    found = store.find(small)
    assert found is not None
    assert found.data == b"a plan"


def test_a_note_that_finds_no_room_leaves_nothing_behind(disk: Path, tmp_path: Path) -> None:
    store, small = PlanStore(disk), key(tmp_path, b"small")
    store.publish(small, b"a plan", {})
    before = entries(disk)
    with pytest.raises(OSError, match="No space left"):
        store.accept(small, {"much": "x" * 2 * SIZE})
    assert entries(disk) == before
    assert not store.accepted(small)
    assert store.find(small) is not None
