"""How many CPU cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

from inferd_engines.control_groups import MEMBERSHIP, MOUNTED, Group, groups


def usable_cores(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> int:
    """Return the cores that the scheduler and CPU limits leave us, at least 1.

    A limit binds whatever is below it, so that the least of our group's and its parents' counts.

    Args:
        membership: file of the groups that this process is in.
        mounted: folder in which groups are seen.
    """
    affinity = len(os.sched_getaffinity(0))
    limits = [_limit(group) for group in groups("cpu", membership, mounted)]
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


def _limit(group: Group) -> str:
    if group.unified:
        return group.text("cpu.max")
    return f"{group.text('cpu.cfs_quota_us').strip()} {group.text('cpu.cfs_period_us').strip()}"
