"""A model that ended two servers while they loaded it is left out by the next one."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_server.models.load_marks import FORGOTTEN_S, LoadMarks

from tests.fakes.clock import FakeClock

DEADLY, GOOD = "deadly", "good"


class Host:
    """A repository and a folder of marks, which outlive the servers."""

    def __init__(self, root: Path) -> None:
        self.marks, self.models = root / "marks", root / "models"
        for name in (DEADLY, GOOD):
            (self.models / name / "1").mkdir(parents=True)
            self.file(name).write_bytes(b"x")
        self.clock = FakeClock(1e9)

    def file(self, name: str) -> Path:
        return self.models / name / "1" / "model.onnx"

    def start(self) -> LoadMarks:
        return LoadMarks(self.marks, self.models, self.clock)

    def die(self, name: str) -> None:
        """A server that ends while it loads a model: what it would do after that is not done."""
        with self.start().loading(name):
            held = {path: path.read_bytes() for path in self.marks.iterdir()}
        for path, data in held.items():
            path.write_bytes(data)

    @property
    def left_out(self) -> frozenset[str]:
        return self.start().left_out([DEADLY, GOOD])


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def deadly(host: Host) -> Host:
    """One whose model ended two servers."""
    host.die(DEADLY)
    host.die(DEADLY)
    return host


def test_once_may_be_chance_and_twice_is_not(host: Host) -> None:
    assert not host.left_out
    host.die(DEADLY)
    assert not host.left_out
    host.die(DEADLY)
    # Nothing is loaded by itself that is left out, so that it stays so.
    assert host.left_out == host.left_out == {DEADLY}


def test_a_load_that_ends_in_order_forgives_what_was_before(deadly: Host) -> None:
    with deadly.start().loading(DEADLY):
        pass
    assert not deadly.left_out
    deadly.die(DEADLY)
    with pytest.raises(OSError, match="damaged"), deadly.start().loading(DEADLY):
        raise OSError("damaged")
    assert not deadly.left_out
    assert not list(deadly.marks.iterdir())


def test_a_server_that_is_told_to_end_while_it_loads_accuses_nobody(host: Host) -> None:
    host.die(DEADLY)
    server = host.start()
    with server.loading(DEADLY):
        server.forget()
        assert not list(host.marks.iterdir())


def test_a_model_whose_files_changed_is_tried_again(deadly: Host) -> None:
    deadly.file(DEADLY).write_bytes(b"mended")
    assert not deadly.left_out
    deadly.die(DEADLY)
    assert not deadly.left_out


def test_after_an_hour_it_is_tried_again(deadly: Host) -> None:
    deadly.clock.advance(FORGOTTEN_S + 1)
    assert not deadly.left_out


def test_a_model_of_the_same_name_elsewhere_is_another(deadly: Host, tmp_path: Path) -> None:
    other = LoadMarks(deadly.marks, tmp_path / "others", deadly.clock)
    assert not other.left_out([DEADLY])


@pytest.mark.parametrize("text", ["", "{}", '{"servers": "many"}', "[1]"])
def test_a_damaged_mark_accuses_nobody(deadly: Host, text: str) -> None:
    for path in deadly.marks.iterdir():
        path.write_text(text)
    assert not deadly.left_out


def test_where_no_marks_can_be_made_models_load_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (None, tmp_path / "file" / "folder"):
        marks = LoadMarks(folder, tmp_path)
        with marks.loading(GOOD):
            pass
        assert not marks.left_out([GOOD])
        marks.forget()
