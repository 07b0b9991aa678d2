"""What fuzzing once found worth keeping is run again, without a fuzzer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import kept
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_inputs_of_a_target_find_nothing(name: str) -> None:
    inputs = kept.read(name)
    assert inputs, "the corpus is gone"
    for data in (*seeds()[name], *inputs):
        TARGETS[name](data)


def test_what_is_kept_comes_back_and_equal_inputs_make_equal_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = tmp_path / "inputs", tmp_path / "other"
    folder.mkdir()
    (folder / "b").write_bytes(b"two")
    (folder / "a").write_bytes(b"")
    monkeypatch.setattr(kept, "FOLDER", tmp_path / "corpus")
    kept.pack("x", folder)
    first = (tmp_path / "corpus/x.zip").read_bytes()
    assert kept.read("x") == [b"", b"two"]
    kept.unpack("x", other)
    kept.pack("x", other)
    assert (tmp_path / "corpus/x.zip").read_bytes() == first
