"""A handle: one version of one model, serving."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_engines.engine import Signature

from inferd_server.batching.decision import BatchBounds
from inferd_server.batching.forecast import Forecast
from inferd_server.batching.instance import Instance
from inferd_server.batching.queue import RequestQueue
from inferd_server.batching.slots import Arena
from inferd_server.errors import ShuttingDown, WorkerLost
from inferd_server.models.batchable import Batching
from inferd_server.models.config import ModelConfig
from inferd_server.models.last_request import LastRequest
from inferd_server.models.triton_config import DeclaredTensor
from inferd_server.monitoring.busy import BusySeconds
from inferd_server.monitoring.statistics import Statistics
from inferd_server.sequences.steps import LARGEST_KEY
from inferd_server.sequences.store import Sequences
from inferd_server.settings.model import BatchingSettings


@dataclass(frozen=True, slots=True)
class ModelBounds:
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
    sequences: bool = False
    """Requests are steps of sequences."""
    delays: bool = False
    """Requests may have to wait behind all others."""

    @property
    def limits(self) -> BatchBounds:
        """As the scheduler takes them."""
        rows = self.preferred_batch_size or self.max_batch_size
        return BatchBounds(
            max(1, rows),
            self.max_queue_delay,
            self.sizes,
            self.levels,
            self.head_start,
            self.sequences,
            self.delays,
        )


def bounds_of(
    config: ModelConfig,
    defaults: BatchingSettings,
    batching: Batching,
    preferred: int,
    buckets: Sequence[int],
) -> ModelBounds:
    """Merge a model's own settings with the server's defaults."""
    delay, wait = config.max_queue_delay_ms, config.max_queue_wait_ms
    rows = config.max_queue_rows or defaults.max_queue_rows
    return ModelBounds(
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
        sequences=config.sequence is not None,
        delays=config.delays,
    )


log = logging.getLogger(__name__)


@dataclass(slots=True)
class Description:
    """What can be told of a loaded model version, to callers and to other processes."""

    name: str
    version: int
    config: ModelConfig
    signature: Signature
    bounds: ModelBounds
    engine: str
    engine_reason: str
    batch_reason: str
    warm_reason: str = field(default="", kw_only=True)
    """Why it was not warmed as usual, with zeros; "" if it was."""
    takes_zeros: bool = field(default=False, kw_only=True)
    """True if it has run on zeros, with free dimensions of 1."""
    plan_state: str = field(default="", kw_only=True)
    """READY, BUILDING, FALLBACK or FAILED; "" where nobody asked for a plan."""
    arrangement: str = field(default="threads", kw_only=True)
    """Who runs the batches: "threads" of its own, or "inline" the transport's."""
    file_name: str = field(default="model.onnx", kw_only=True)
    """Of the model's file in the folder of its version."""
    number: int = field(default=0, kw_only=True)
    """By which other processes know it."""
    digest: str = field(default="", kw_only=True)
    """Of the files that it was loaded from, if answers or predictions are known by it; else ""."""
    drift: str = field(default="", kw_only=True)
    """The key of the reference that requests are compared with; "": they are not."""
    largest_sequence_id: int = field(default=LARGEST_KEY, kw_only=True)
    """That the model can be told."""

    @property
    def batched(self) -> bool:
        """True if requests share runs."""
        return self.bounds.max_batch_size > 0

    @property
    def described(self) -> Mapping[str, object]:
        """What the log says of it."""
        return {
            "model": self.name,
            "version": self.version,
            "engine": self.engine,
            "engine_reason": self.engine_reason,
            "plan_state": self.plan_state,
            "max_batch_size": self.bounds.max_batch_size,
            "preferred_batch_size": self.bounds.limits.max_rows,
            "batch_reason": self.batch_reason,
            "warm_reason": self.warm_reason,
            "arrangement": self.arrangement,
        }

    def description(self) -> Description:
        """Return only what can be told."""
        return Description(
            **{name: getattr(self, name) for name in Description.__dataclass_fields__}
        )


@dataclass(slots=True)
class Handle(Description):
    """A loaded model version: what admission checks against, and where requests go."""

    queue: RequestQueue
    arena: Arena
    statistics: Statistics
    forecast: Forecast
    declared: tuple[DeclaredTensor, ...] = field(default=(), kw_only=True)
    """What its config.pbtxt says of inputs and outputs."""
    instances: Sequence[Instance] = field(default_factory=tuple)
    last_request: LastRequest | None = None
    """For trials of a model that takes no zeros; None where zeros do."""
    sequences: Sequences | None = None
    """Of a model whose requests build on each other, where its engine is."""
    busy: list[BusySeconds] = field(default_factory=list)
    """For how long each of its engines ran; none where they are another process's."""
    lost: str = ""
    """Why it can serve no more, once one of its engines was lost."""

    @property
    def gauges(self) -> Mapping[tuple[str, str, int], float]:
        """What the metrics say of this moment."""
        version = self.name, self.version
        # In this order: the first one collects what came, which the other counts.
        found = {("inferd_waiting_requests", *version): float(self.queue.waiting_requests)}
        if self.instances:
            found["inferd_waiting_rows", *version] = float(self.queue.rows)
        if self.sequences is not None:
            found["inferd_open_sequences", *version] = float(self.sequences.open)
        return found

    @property
    def ended(self) -> bool:
        """True once no engine of it is at work any more."""
        return all(instance.join(0) for instance in self.instances)

    def lose(self, error: BaseException) -> None:
        """Take no more requests, and answer those that wait: an engine was lost."""
        # Before the queue closes, so that a closed queue has its reason.
        self.lost = f"its engine was lost: {error}"
        for job in self.queue.drain():
            job.fail(WorkerLost(f"the engine of model {self.name!r} was lost"))

    def retire(self, timeout: float | None) -> None:
        """Take no more requests, finish those that wait, close the engines; blocks.

        Args:
            timeout: seconds for each instance; what waits longer is answered ShuttingDown.
        """
        self.queue.close()
        ended = [instance.join(timeout) for instance in self.instances]
        if not all(ended):
            for job in self.queue.drain():
                job.fail(ShuttingDown(f"model {self.name!r} was unloaded before the request ran"))
            log.warning("an instance did not end in time", extra={"model": self.name})
        # Its lanes would be kept for requests that never come.
        self.arena.close()
