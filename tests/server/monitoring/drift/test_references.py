"""References are kept for the next start, and processes that learn at the same time agree."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from inferd_server.monitoring.drift.reference import Hints, Reference, make_reference
from inferd_server.monitoring.drift.references import References

from .samples import answered, digits, table


def made(seed: int) -> Reference:
    return make_reference([table(np.random.default_rng(seed), 200)], Hints(), f"seed {seed}")


def test_a_reference_is_the_same_after_a_restart(tmp_path: Path) -> None:
    reference = make_reference([answered(digits()[0][:300])], Hints(), "digits")
    assert References(tmp_path).agree("k", reference) is reference
    assert References(tmp_path).find("k") == reference
    assert References(tmp_path).find("other") is None


def test_the_first_reference_of_a_key_holds(tmp_path: Path) -> None:
    first, second = References(tmp_path), References(tmp_path)
    assert first.agree("k", made(1)) == made(1)
    assert second.agree("k", made(2)) == made(1)
    assert second.find("k") == made(1)


def test_processes_that_learn_at_once_agree(tmp_path: Path) -> None:
    found: list[Reference] = []
    candidates = [made(seed) for seed in range(8)]
    together = threading.Barrier(8)

    def learn(one: Reference) -> None:
        together.wait()
        found.append(References(tmp_path).agree("k", one))

    threads = [threading.Thread(target=learn, args=(one,)) for one in candidates]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 8
    assert [path.name for path in tmp_path.iterdir()] == ["k.1.json"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"source": 1}', b"\xff"])
def test_a_damaged_file_is_none_and_the_log_says_so(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    References(tmp_path).agree("k", made(1))
    (tmp_path / "k.1.json").write_bytes(damage)
    assert References(tmp_path).find("k") is None
    assert "cannot be read" in caplog.text


def test_counts_that_do_not_fit_their_edges_are_damage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    References(tmp_path).agree("k", made(1))
    path = tmp_path / "k.1.json"
    path.write_text(path.read_text().replace('"counts":[', '"counts":[1,', 1))
    assert References(tmp_path).find("k") is None
    assert "damaged" in caplog.text


def test_a_folder_that_cannot_be_written_keeps_it_in_this_process_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    references = References(tmp_path / "file" / "folder")
    assert references.agree("k", made(1)) == made(1)
    assert references.find("k") == made(1)
    assert "not kept beyond this process" in caplog.text
