"""What `perf_analyzer` does to each server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """Requests of one row from `callers` at a time."""

    name: str
    model: str
    callers: int
    stream: bool = False
    shared_memory: bool = False
    # A model of 25 rows a second needs more time for a 99th percentile to mean something.
    times: int = 1
    # Whether serving can be compared with ONNX Runtime alone, because the model's time decides.
    bare: bool = False


_ALL = (
    Load("digits-1", "digits", 1),
    Load("digits-8", "digits", 8),
    Load("digits-32", "digits", 32),
    Load("digits-stream-32", "digits", 32, stream=True),
    Load("mean-32", "mean", 32),
    Load("mean-shm-32", "mean", 32, shared_memory=True),
    Load("resnet50-8", "resnet50", 8, times=4, bare=True),
)
LOADS: Mapping[str, Load] = {load.name: load for load in _ALL}
