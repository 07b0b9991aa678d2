"""Timing caches as TensorRT has them: attached to a build, and joined."""

from __future__ import annotations

import logging
from typing import Any

from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.shim import Library

log = logging.getLogger(__name__)


def attach(library: Library, config: Any, data: bytes) -> Any:
    """Give a build a timing cache and return it; None where the flavour times nothing.

    Args:
        library: that builds.
        config: of the build.
        data: serialised, of an earlier build; empty for none.
    """
    if not library.timing_cache:
        return None
    cache = config.create_timing_cache(data)
    if cache is None or not config.set_timing_cache(cache, False):
        # One of another device or version, which TensorRT tells itself.
        log.warning("TensorRT does not take the timing cache, and begins a new one")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def combined(config: Any, one: bytes, other: bytes) -> bytes:
    """Return a timing cache that knows what both know.

    Args:
        config: of any build with the same TensorRT.
        one: serialised; wins where both know something.
        other: serialised.

    Raises:
        BuildFailed: they are not of one TensorRT and one device.
    """
    cache, more = config.create_timing_cache(one), config.create_timing_cache(other)
    if cache is None or more is None or not cache.combine(more, False):
        raise BuildFailed("TensorRT cannot join two timing caches")
    return bytes(cache.serialize())
