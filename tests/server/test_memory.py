"""What limits of control groups leave of the memory, in both of their versions."""

from __future__ import annotations

from pathlib import Path

import pytest
from inferd_server.memory import headroom_bytes, out_of_memory_kills

MIB = 1 << 20


class Host:
    """The files in which a process finds what memory it has."""

    def __init__(self, folder: Path, line: str, available_mib: int = 8192) -> None:
        self.mounted = folder / "cgroup"
        self.membership = folder / "membership"
        self.membership.write_text(f"5:cpu:/elsewhere\n{line}\n")
        self.told = folder / "meminfo"
        self.told.write_text(f"MemTotal: 99999 kB\nMemAvailable:  {available_mib * 1024} kB\n")

    def write(self, group: str, **files: object) -> None:
        (self.mounted / group).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (self.mounted / group / f"memory.{name}").write_text(f"{text}\n")

    def headroom(self) -> int | None:
        return headroom_bytes(self.membership, self.mounted, self.told)

    def kills(self) -> int | None:
        return out_of_memory_kills(self.membership, self.mounted)


def test_a_limit_leaves_what_is_not_used_and_what_files_keep(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/pod/worker")
    assert host.headroom() == 8192 * MIB
    host.write("pod/worker", max="max", current=50 * MIB)
    stat = f"anon 1\nactive_file {7 * MIB}\ninactive_file {3 * MIB}"
    host.write("pod", max=600 * MIB, current=400 * MIB, stat=stat)
    assert host.headroom() == 210 * MIB
    host.write("pod/worker", max=100 * MIB)
    assert host.headroom() == 50 * MIB


def test_limits_of_version_1_are_read_too(tmp_path: Path) -> None:
    host = Host(tmp_path, "4:memory:/docker/abc")
    stat = f"active_file 1\ntotal_active_file {7 * MIB}\ntotal_inactive_file {3 * MIB}"
    host.write("memory/docker/abc", limit_in_bytes=2**63 - 4096, usage_in_bytes=400 * MIB)
    host.write("memory", limit_in_bytes=600 * MIB, usage_in_bytes=400 * MIB, stat=stat)
    assert host.headroom() == 210 * MIB


def test_what_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/")
    host.write("", max=100 * MIB, current=101 * MIB)
    assert host.headroom() == 0


def test_without_any_file_nothing_is_known(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/")
    host.told.write_text("nonsense\n")
    assert host.headroom() is None
    assert host.kills() is None


@pytest.mark.parametrize(
    ("line", "folder", "file"),
    [
        ("0::/pod", "pod", {"events": "low 0\noom 3\noom_kill 2\n"}),
        ("4:memory:/pod", "memory/pod", {"oom_control": "under_oom 0\noom_kill 2\n"}),
    ],
)
def test_ends_for_want_of_memory_are_counted(
    tmp_path: Path, line: str, folder: str, file: dict[str, str]
) -> None:
    host = Host(tmp_path, line)
    assert host.kills() is None
    host.write(folder, **file)
    assert host.kills() == 2
