"""What is tried on an engine before it serves."""

from __future__ import annotations

import logging
from collections.abc import Callable

from inferd_engines.engine import Engine, EngineError, Signature

from inferd_server.repository.config import ModelConfig
from inferd_server.repository.handle import Handle
from inferd_server.worker.timing import run_seconds, worthwhile_rows

log = logging.getLogger(__name__)


def preferred_rows(
    engine: Engine, config: ModelConfig, most: int, clock: Callable[[], float]
) -> int:
    """Return the rows that requests are put together to.

    Args:
        engine: opened.
        config: of the model.
        most: rows that a batch may have.
        clock: monotonic seconds.
    """
    if engine.buckets:
        most = min(most, max(engine.buckets))
    if config.preferred_rows is not None:
        return min(config.preferred_rows, most)
    if most < 2 or config.warm_up == []:
        return most
    return worthwhile_rows(lambda rows: run_seconds(engine, rows, clock, 2), most)


def warm(engine: Engine, handle: Handle) -> None:
    """Run the sizes that model.yaml names, or one row and the largest batch that is made."""
    asked = handle.config.warm_up
    largest = handle.bounds.limits.max_rows
    for rows in sorted({1, largest}) if asked is None else asked:
        try:
            engine.warm(rows)
        except EngineError as error:
            free = free_dimensions(handle.signature, handle.batched)
            if error.fatal or asked is not None or not free:
                raise
            # Zeros of the smallest shape need not be an input that the model accepts.
            log.info("not warmed", extra={"model": handle.name, "why": str(error)})


def free_dimensions(signature: Signature, batched: bool) -> bool:
    """True if an input has a free dimension besides that of the batch."""
    return any(None in tensor.shape[int(batched) :] for tensor in signature.inputs)
