"""Timing caches on disk: what TensorRT measured in earlier builds, and need not measure again.

    STORE/timing/DIGEST          what it is of, its size and its SHA-256, one line; then the cache
    STORE/timing/DIGEST.lock     held by who adds to it; never deleted

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
from inferd_engines.tensorrt.key import Host, differences, plain

log = logging.getLogger(__name__)
TIMING = "timing"
Combine = Callable[[bytes, bytes], bytes]
"""Returns a cache that knows what both know."""


class TimingCache:
    """The cache of one TensorRT, CUDA and GPU in a plan store. Any process may call any method."""

    def __init__(self, store: Path, host: Host, targets: Sequence[str]) -> None:
        """Use a store's folder.

        Args:
            store: where the plans are.
            host: that builds.
            targets: compute capabilities that it builds for; empty for its GPU.
        """
        self._parts: Mapping[str, Any] = {"host": plain(asdict(host)), "targets": list(targets)}
        text = json.dumps(self._parts, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._path = store / TIMING / digest

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
        log.warning("a timing cache is ignored", extra={"file": str(self._path), "why": problem})
        return b""

    def keep(self, before: bytes, after: bytes, combine: Combine) -> None:
        """Keep what a build measured, and what others did meanwhile.

        Args:
            before: the cache that the build began with.
            after: as it was at its end.
            combine: joins two caches.
        """
        if after == before:
            return
        try:
            with lock(self._path.with_name(f"{self._path.name}.lock")):
                meanwhile = self.read()
                if meanwhile not in (before, b""):
                    after = combine(after, meanwhile)
                replace(self._path, self._header(after) + b"\n" + after)
        except (OSError, TensorRTError) as error:
            # The plan is there, and that is what was asked for.
            where = {"file": str(self._path), "why": str(error)}
            log.warning("a timing cache was not kept", extra=where)

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
