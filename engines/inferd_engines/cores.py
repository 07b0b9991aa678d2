"""How many CPU cores this process may really use."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where a container sees its CPU limit. Source: "cpu.max" in Linux's cgroup v2 guide."""


def usable_cores(quota: Path = CGROUP_QUOTA) -> int:
    """Return the cores that the scheduler and the container's CPU limit leave us, at least 1."""
    try:
        limit = quota.read_text(encoding="ascii")
    except OSError:
        limit = ""
    return cores_under(len(os.sched_getaffinity(0)), limit)


def cores_under(affinity: int, limit: str) -> int:
    """Return the lesser of affinity and CPU limit, which is rounded up to whole cores.

    Args:
        affinity: cores that the process may be scheduled on.
        limit: cgroup v2's cpu.max, "QUOTA PERIOD" in microseconds or "max PERIOD"; anything
            else means no limit.
    """
    quota, _, period = limit.strip().partition(" ")
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return affinity
    return max(1, min(affinity, math.ceil(int(quota) / int(period))))
