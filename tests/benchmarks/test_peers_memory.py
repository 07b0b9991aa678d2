"""Memory of a process tree, read from a folder laid out like /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.memory import Memory, kib, memory, tree


def process(proc: Path, pid: int, children: str, peak: int, pss: int) -> None:
    """Lay out a process of one thread."""
    task = proc / str(pid) / "task" / str(pid)
    task.mkdir(parents=True)
    (task / "children").write_text(children)
    (proc / str(pid) / "status").write_text(f"Name:\tx\nVmHWM:\t{peak} kB\nVmRSS:\t1 kB\n")
    (proc / str(pid) / "smaps_rollup").write_text(f"0-f [rollup]\nRss: 1 kB\nPss: {pss} kB\n")


def test_peaks_and_proportional_sizes_are_summed_over_the_tree(tmp_path: Path) -> None:
    process(tmp_path, 10, "11 12 ", 2048, 1024)
    process(tmp_path, 11, "13 ", 1024, 512)
    process(tmp_path, 12, "", 1024, 512)
    process(tmp_path, 13, "", 4096, 1024)
    process(tmp_path, 99, "", 1 << 20, 1 << 20)
    pids = tree(10, tmp_path)
    assert sorted(pids) == [10, 11, 12, 13]
    assert memory(pids, tmp_path) == Memory(peak=8.0, shared=3.0)


def test_children_of_every_thread_count(tmp_path: Path) -> None:
    process(tmp_path, 10, "11 ", 0, 0)
    process(tmp_path, 11, "", 0, 0)
    process(tmp_path, 12, "", 0, 0)
    second = tmp_path / "10/task/77"
    second.mkdir()
    (second / "children").write_text("12")
    assert sorted(tree(10, tmp_path)) == [10, 11, 12]


def test_a_field_is_found_by_its_whole_name() -> None:
    assert kib("Pss_Dirty: 5 kB\nPss: 7 kB\n", "Pss") == 7


def test_a_field_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match="VmHWM"):
        kib("VmRSS: 5 kB\n", "VmHWM")
