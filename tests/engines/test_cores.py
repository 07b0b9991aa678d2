"""Cores are counted as the scheduler and a container's limit leave them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inferd_engines.cores import cores_under, usable_cores

MACHINE = 64


@pytest.mark.parametrize(
    ("affinity", "limit", "expected"),
    [
        (64, "200000 100000", 2),
        (64, "150000 100000", 2),
        (64, "50000 100000", 1),
        (2, "400000 100000", 2),
        (8, "max 100000", 8),
        (8, "", 8),
        (8, "nonsense", 8),
        (8, "100000 0", 8),
        (8, "-1 100000", 8),
        (8, "\u00b2 \u00b3", 8),
    ],
)
def test_the_lesser_of_affinity_and_limit_counts(affinity: int, limit: str, expected: int) -> None:
    assert cores_under(affinity, limit) == expected


@given(st.integers(1, 512), st.text())
def test_any_limit_leaves_a_core_and_never_more_than_affinity(affinity: int, limit: str) -> None:
    assert 1 <= cores_under(affinity, limit) <= affinity


class Host:
    """The files in which a process finds its CPU limits."""

    def __init__(self, folder: Path, *lines: str) -> None:
        self.mounted = folder / "cgroup"
        self.membership = folder / "membership"
        self.membership.write_text("".join(f"{line}\n" for line in lines))

    def limit(self, group: str, quota: str, period: str = "100000") -> None:
        """Limit a group of version 2."""
        self._write(group, "cpu.max", f"{quota} {period}")

    def limit_v1(self, group: str, quota: str, period: str = "100000") -> None:
        """Limit a group of version 1."""
        self._write(group, "cpu.cfs_quota_us", quota)
        self._write(group, "cpu.cfs_period_us", period)

    def cores(self) -> int:
        return usable_cores(self.membership, self.mounted)

    def _write(self, group: str, name: str, text: str) -> None:
        folder = self.mounted / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


@pytest.fixture(autouse=True)
def _many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(MACHINE)))


def test_a_containers_own_limit_is_read(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/")
    host.limit("", "200000")
    assert host.cores() == 2


def test_the_least_of_a_nested_group_and_its_parents_counts(tmp_path: Path) -> None:
    host = Host(tmp_path, "0::/pod.slice/container/worker")
    host.limit("pod.slice", "300000")
    host.limit("pod.slice/container", "max")
    assert host.cores() == 3
    host.limit("pod.slice/container/worker", "100000")
    assert host.cores() == 1
    host.limit("pod.slice/container/worker", "900000")
    assert host.cores() == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_limits_of_version_1_are_read_and_nested_ones_too(tmp_path: Path, folder: str) -> None:
    host = Host(tmp_path, "5:memory:/docker/abc", "4:cpu,cpuacct:/docker/abc", "0::/")
    host.limit_v1(f"{folder}/docker", "400000")
    host.limit_v1(f"{folder}/docker/abc", "-1")
    assert host.cores() == 4
    host.limit_v1(f"{folder}/docker/abc", "50000", "25000")
    assert host.cores() == 2


def test_a_path_that_is_the_hosts_leaves_the_group_that_is_seen(tmp_path: Path) -> None:
    host = Host(tmp_path, "4:cpu,cpuacct:/kubepods/pod1/abc")
    host.limit_v1("cpu", "300000")
    assert host.cores() == 3


@pytest.mark.parametrize("line", ["0::/../../other", "0::", "nonsense", "3:cpu", ":::", "0::x"])
def test_a_line_that_leads_nowhere_leaves_the_root(tmp_path: Path, line: str) -> None:
    host = Host(tmp_path, line)
    assert host.cores() == MACHINE
    host.limit("", "500000")
    host.limit_v1("cpu", "500000")
    assert host.cores() in {5, MACHINE}


def test_version_2_beside_version_1_is_read(tmp_path: Path) -> None:
    host = Host(tmp_path, "1:name=systemd:/x", "0::/x")
    host.limit("unified/x", "200000")
    assert host.cores() == 2


def test_without_any_file_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "membership", tmp_path / "cgroup") == MACHINE
