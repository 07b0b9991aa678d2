"""How many CPU cores this process may really use."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MEMBERSHIP = Path("/proc/self/cgroup")
"""Which groups this process is in: "ID:CONTROLLERS:PATH" lines. Source: cgroups(7)."""
MOUNTED = Path("/sys/fs/cgroup")
"""Where groups are seen: cgroup v2 here, or each controller of v1 in a folder of its own."""
ROOT = PurePosixPath("/")


def usable_cores(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> int:
    """Return the cores that the scheduler and CPU limits leave us, at least 1.

    A limit binds whatever is below it, so that the least of our group's and its parents' counts.

    Args:
        membership: file of the groups that this process is in.
        mounted: folder in which groups are seen.
    """
    affinity = len(os.sched_getaffinity(0))
    lines = _text(membership).splitlines() or ["0::/"]
    limits = [limit for line in lines for limit in _limits(line, mounted)]
    return min(cores_under(affinity, limit) for limit in ("", *limits))


def cores_under(affinity: int, limit: str) -> int:
    """Return the lesser of affinity and CPU limit, which is rounded up to whole cores.

    Args:
        affinity: cores that the process may be scheduled on.
        limit: "QUOTA PERIOD" in microseconds, as cgroup v2's cpu.max has them; "max" or -1 for
            the quota, or anything else, means no limit.
    """
    quota, _, period = limit.strip().partition(" ")
    # ASCII alone: isdigit() takes digits of other scripts and raised ones, too.
    if not limit.isascii() or not (quota.isdigit() and period.isdigit() and int(period)):
        return affinity
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))


def _limits(line: str, mounted: Path) -> Iterator[str]:
    """Yield the CPU limits of the group on a line of the membership file, and of its parents."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    if not controllers:
        # Version 2, which some hosts have beside version 1, in a folder of its own.
        for root in (mounted, mounted / "unified"):
            for group in _upwards(root, path):
                yield _text(group / "cpu.max")
    elif "cpu" in controllers.split(","):
        # Mounted by the names of its controllers, and linked by each of them.
        for root in (mounted / controllers, mounted / "cpu"):
            for group in _upwards(root, path):
                quota = _text(group / "cpu.cfs_quota_us").strip()
                yield f"{quota} {_text(group / 'cpu.cfs_period_us').strip()}"


def _upwards(root: Path, path: str) -> Iterator[Path]:
    """Yield a group's folder and those of its parents, the root last.

    In a container the path may be the host's, which is not to be found there: the root is the
    container's own group then.
    """
    group = PurePosixPath(path or "/")
    if not group.is_absolute() or ".." in group.parts:
        group = ROOT
    for folder in (group, *group.parents):
        yield root / folder.relative_to(ROOT)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
