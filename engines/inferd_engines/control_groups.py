"""The control groups that this process is in, where its limits of processor and memory stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

MEMBERSHIP = Path("/proc/self/cgroup")
"""Which groups this process is in: "ID:CONTROLLERS:PATH" lines. Source: cgroups(7)."""
MOUNTED = Path("/sys/fs/cgroup")
"""Where groups are seen: cgroup v2 here, or each controller of v1 in a folder of its own."""
ROOT = PurePosixPath("/")


class Group(NamedTuple):
    """A group of this process, or a parent of one."""

    folder: Path
    """Of its files, which need not be there."""
    unified: bool
    """True for cgroup v2."""

    def text(self, name: str) -> str:
        """Return what stands in one of its files; "" if it cannot be read."""
        return text_of(self.folder / name)


def groups(controller: str, membership: Path, mounted: Path) -> Iterator[Group]:
    """Yield this process's groups and all their parents, whose limits bind it as well.

    Args:
        controller: whose groups are looked for, where each has some of its own (v1).
        membership: file of the groups that this process is in.
        mounted: folder in which groups are seen.
    """
    for line in text_of(membership).splitlines() or ["0::/"]:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            # Version 2, which some hosts have beside version 1, in a folder of its own.
            roots, unified = (mounted, mounted / "unified"), True
        elif controller in controllers.split(","):
            # Mounted by the names of its controllers, and linked by each of them.
            roots, unified = (mounted / controllers, mounted / controller), False
        else:
            continue
        for root in roots:
            for folder in _upwards(root, path):
                yield Group(folder, unified)


def text_of(path: Path) -> str:
    """Return what stands in a file of the kernel's; "" if it cannot be read."""
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""


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
