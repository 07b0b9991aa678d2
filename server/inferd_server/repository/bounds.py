"""The bounds of a model's queue and batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_server.repository.config import ModelConfig
from inferd_server.scheduler.decision import Limits
from inferd_server.settings.model import BatchingSettings
from inferd_server.worker.batching import Batching


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a model's queue."""

    max_batch_size: int
    """0: requests run one at a time."""
    max_queue_delay: float
    """Seconds."""
    max_queue_rows: int
    max_queue_bytes: int
    preferred_batch_size: int = 0
    """Rows that requests are put together to; 0: as many as may be in one batch."""
    sizes: tuple[int, ...] = ()
    """Batch sizes that the engine runs without padding, in rising order; empty: any."""
    max_queue_wait: float = 0.0
    """Seconds; 0: no bound."""
    levels: int = 1
    """Priorities."""
    head_start: float = 0.0
    """Seconds by which a priority goes before the next lower one."""
    level_rows: Mapping[int, int] = field(default_factory=dict)
    """Bounds of priorities in rows, by level from 0."""

    @property
    def limits(self) -> Limits:
        """As the scheduler takes them."""
        rows = self.preferred_batch_size or self.max_batch_size
        return Limits(max(1, rows), self.max_queue_delay, self.sizes, self.levels, self.head_start)


def bounds_of(
    config: ModelConfig,
    defaults: BatchingSettings,
    batching: Batching,
    preferred: int,
    buckets: Sequence[int],
) -> Bounds:
    """Merge a model's own settings with the server's defaults."""
    delay, wait = config.max_queue_delay_ms, config.max_queue_wait_ms
    rows = config.max_queue_rows or defaults.max_queue_rows
    return Bounds(
        max_batch_size=batching.max_batch_size,
        max_queue_delay=(defaults.max_queue_delay_ms if delay is None else delay) / 1000,
        max_queue_rows=max(rows, batching.max_batch_size),
        max_queue_bytes=defaults.max_queue_bytes,
        preferred_batch_size=preferred,
        sizes=tuple(sorted(buckets)) if batching.max_batch_size else (),
        max_queue_wait=(defaults.max_queue_wait_ms if wait is None else wait) / 1000,
        levels=config.priority_levels,
        head_start=config.priority_head_start_ms / 1000,
        level_rows={level - 1: rows for level, rows in config.priority_queue_rows.items()},
    )
