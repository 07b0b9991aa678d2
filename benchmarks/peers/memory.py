"""Memory of a server's processes, from /proc."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of a process tree.

    `peak` sums the high-water marks (VmHWM), so that a page that several processes share counts
    in each; `shared` sums the proportional set sizes (PSS) at one moment, so that it counts once.
    """

    peak: float
    shared: float


def memory(pids: Iterable[int], proc: Path = Path("/proc")) -> Memory:
    """Return what these processes used."""
    folders = [proc / str(pid) for pid in pids]
    peak = sum(kib((folder / "status").read_text(), "VmHWM") for folder in folders)
    shared = sum(kib((folder / "smaps_rollup").read_text(), "Pss") for folder in folders)
    return Memory(peak / 1024, shared / 1024)


def kib(text: str, field: str) -> int:
    """Return the value of a line `FIELD:  123 kB`.

    Raises:
        ValueError: there is no such line.
    """
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0])
    raise ValueError(f"no {field}")


def tree(pid: int, proc: Path = Path("/proc")) -> list[int]:
    """Return the process and all its descendants."""
    found = [pid]
    for parent in found:
        for children in (proc / str(parent) / "task").glob("*/children"):
            # A thread, or a process, may end meanwhile.
            with suppress(OSError):
                found += [int(child) for child in children.read_text().split()]
    return found
