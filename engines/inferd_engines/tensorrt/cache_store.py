"""TensorRT's caches on disk: what it found out once, and need not find out again.

    STORE/timing/DIGEST          what builds measured: what it is of, its size and its SHA-256,
                                 one line; then the cache
    STORE/runtime/DIGEST         what TensorRT-RTX compiled for a GPU, in the same form
    STORE/.../DIGEST.lock        held by who adds to it; never deleted

A cache only saves time: one that cannot be used is ignored, and says so in the log.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.disk import lock, replace
from inferd_engines.tensorrt.errors import TensorRTError
from inferd_engines.tensorrt.key import Gpu, Host, PlanKey, differences, plain

log = logging.getLogger(__name__)
TIMING, RUNTIME = "timing", "runtime"
Combine = Callable[[bytes, bytes], bytes]
"""Returns a cache that knows what both know."""


def timing_cache(store: Path, host: Host, targets: Sequence[str]) -> CacheFile:
    """Return what builds measured with one TensorRT and CUDA on one GPU.

    Args:
        store: where the plans are.
        host: that builds.
        targets: compute capabilities that it builds for; empty for its GPU.
    """
    return CacheFile(store, TIMING, {"host": plain(asdict(host)), "targets": list(targets)})


def runtime_cache(store: Path, key: PlanKey, gpu: Gpu, driver: str) -> CacheFile:
    """Return what was compiled of one plan for one GPU.

    Args:
        store: where the plans are.
        key: of the plan, the version of TensorRT in it.
        gpu: that runs it.
        driver: version of its CUDA.
    """
    return CacheFile(store, RUNTIME, {"plan": key.digest, "gpu": asdict(gpu), "driver": driver})


class CacheFile:
    """One cache in a plan store. Any process may call any method."""

    def __init__(self, store: Path, kind: str, parts: Mapping[str, Any]) -> None:
        """Use a store's folder.

        Args:
            store: where the plans are.
            kind: the folder in it.
            parts: everything that the cache is valid for, as JSON has it.
        """
        self._kind, self._parts = kind, parts
        text = json.dumps(self._parts, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._path = store / kind / digest

    def read(self) -> bytes:
        """Return the cache; empty if there is none, or it cannot be used."""
        try:
            header, _, data = self._path.read_bytes().partition(b"\n")
            problem = problem_with(json.loads(header), data, self._parts)
        except FileNotFoundError:
            return b""
        except (OSError, ValueError) as error:
            problem = str(error)
        if not problem:
            return data
        where = {"file": str(self._path), "why": problem}
        log.warning("a %s cache is ignored", self._kind, extra=where)
        return b""

    def keep(self, before: bytes, after: bytes, combine: Combine | None = None) -> None:
        """Keep a cache, and what others added meanwhile where two can be joined.

        Args:
            before: as it was read.
            after: as it is now; an empty one is not kept.
            combine: joins two caches.
        """
        if after in (before, b""):
            return
        try:
            with lock(self._path.with_name(f"{self._path.name}.lock")):
                meanwhile = self.read()
                if combine is not None and meanwhile not in (before, b""):
                    after = combine(after, meanwhile)
                replace(self._path, self._header(after) + b"\n" + after)
        except (OSError, TensorRTError) as error:
            # The plan is there, and that is what was asked for.
            where = {"file": str(self._path), "why": str(error)}
            log.warning("a %s cache was not kept", self._kind, extra=where)

    def _header(self, data: bytes) -> bytes:
        about = {
            "of": self._parts,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        return json.dumps(about, sort_keys=True).encode()


def problem_with(header: Any, data: bytes, parts: Mapping[str, Any]) -> str:
    """Say what is wrong with a stored cache; "" if nothing is."""
    if not isinstance(header, Mapping):
        return "its first line is not one of a cache"
    if header.get("bytes") != len(data):
        return f"it has {len(data)} bytes and should have {header.get('bytes')}"
    if header.get("sha256") != hashlib.sha256(data).hexdigest():
        return "its bytes are not those that were written"
    of = header.get("of")
    return "; ".join(differences(parts, of if isinstance(of, Mapping) else {}))
