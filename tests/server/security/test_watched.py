"""A file is read anew when it has changed, and what cannot be used leaves what was."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from inferd_server.errors import SettingsError
from inferd_server.security import watched
from inferd_server.security.watched import LOOK_S, WatchedFile

from tests.fakes.clock import FakeClock


def read(path: Path) -> str:
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"{path} cannot be read") from error
    if text == "broken":
        raise SettingsError("broken")
    return text


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("one")
    return tmp_path / "file"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine have time for a look."""
    monkeypatch.setattr(watched, "PATIENCE_S", 30.0)


def replaced(path: Path, text: str) -> None:
    """Replace a file as a mounted secret is replaced: by another one."""
    new = path.with_name("new")
    new.write_text(text)
    new.replace(path)


def test_a_change_is_seen_at_the_next_look_and_not_before(path: Path) -> None:
    clock = FakeClock()
    content = WatchedFile(path, read, clock)
    replaced(path, "two")
    clock.advance(LOOK_S * 0.9)
    assert content() == "one"
    clock.advance(LOOK_S * 0.1)
    assert content() == "two"


def test_a_change_of_the_same_size_and_time_is_seen(path: Path) -> None:
    clock = FakeClock()
    content = WatchedFile(path, read, clock)
    before = path.stat()
    path.write_text("six")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    clock.advance(LOOK_S)
    assert content() == "six"


def test_a_read_that_does_not_end_keeps_nobody_waiting_and_is_told_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watched, "PATIENCE_S", 0.01)
    clock, reading, go_on = FakeClock(), threading.Event(), threading.Event()

    def hanging(file: Path) -> str:
        if reading.is_set():
            go_on.wait(30)
        reading.set()
        return read(file)

    content = WatchedFile(path, hanging, clock)
    replaced(path, "two")
    for _ in range(30):
        clock.advance(LOOK_S)
        assert content() == "one"
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert str(path) in said.getMessage()
    go_on.set()
    monkeypatch.setattr(watched, "PATIENCE_S", 30.0)
    clock.advance(LOOK_S)
    while content() == "one":
        clock.advance(LOOK_S)
    assert content() == "two"


def test_a_file_that_stays_is_not_read_again(path: Path) -> None:
    clock, reads = FakeClock(), []

    def counted(file: Path) -> str:
        reads.append(file)
        return read(file)

    content = WatchedFile(path, counted, clock)
    for _ in range(3):
        clock.advance(LOOK_S)
        assert content() == "one"
    assert len(reads) == 1


def test_a_link_that_points_elsewhere_is_a_change(tmp_path: Path, path: Path) -> None:
    (tmp_path / "other").write_text("two")
    link = tmp_path / "link"
    link.symlink_to(path)
    clock = FakeClock()
    content = WatchedFile(link, read, clock)
    link.unlink()
    link.symlink_to(tmp_path / "other")
    clock.advance(LOOK_S)
    assert content() == "two"


@pytest.mark.parametrize("broken", ["broken", None])
def test_what_cannot_be_used_leaves_the_old_content_and_is_said_once(
    path: Path, broken: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    content = WatchedFile(path, read, clock)
    path.unlink() if broken is None else replaced(path, broken)
    for _ in range(3):
        clock.advance(LOOK_S)
        assert content() == "one"
    (said,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "the old one stays" in said.getMessage()
    replaced(path, "two")
    clock.advance(LOOK_S)
    assert content() == "two"


def test_a_file_that_cannot_be_used_at_the_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError):
        WatchedFile(tmp_path / "none", read, FakeClock())
