"""Whether the time of a run depends on an ONNX model's inputs beyond their shapes."""

from __future__ import annotations

import mmap
from pathlib import Path

# Operators that run a part of the graph as often as values say.
CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")
OP_TYPE = b"\x22"
"""Tag of NodeProto.op_type (field 4, with a length)."""


def is_steady(path: Path) -> bool:
    """Search a model file for control flow; what only looks like it counts as such."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return all(content.find(encoded(name)) < 0 for name in CONTROL_FLOW)


def encoded(operator: str) -> bytes:
    """Return the bytes by which a node names its operator."""
    name = operator.encode()
    return OP_TYPE + bytes([len(name)]) + name
