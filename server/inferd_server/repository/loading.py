"""A model version while its instances open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd_engines.engine import Engine, Overlapping, Signature

from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.repository.bounds import Bounds, bounds_of
from inferd_server.repository.config import ModelConfig
from inferd_server.repository.handle import Handle
from inferd_server.repository.line import Runner, Station
from inferd_server.repository.observing import Observing
from inferd_server.repository.remarks import remarks
from inferd_server.repository.warming import free_dimensions, preferred_rows, warm
from inferd_server.scheduler.forecast import Forecast
from inferd_server.scheduler.slot import Arena
from inferd_server.scheduler.turns import Member, Turns
from inferd_server.sequences.engine import StatefulEngine, told
from inferd_server.sequences.store import Sequences
from inferd_server.settings.model import BatchingSettings
from inferd_server.worker.batching import find_batching
from inferd_server.worker.inline import LONGEST_S, InlineLoop, runs_inline
from inferd_server.worker.instance import Instance, Work
from inferd_server.worker.overlap import Overlap
from inferd_server.worker.sharing import shared
from inferd_server.worker.timing import run_seconds

log = logging.getLogger(__name__)
Lost = Callable[[Handle], None]
CPU = "CPU"
"""Stands in the names of engines that run on the processor."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a process has for its models."""

    defaults: BatchingSettings
    asked: str
    """The arrangement that the settings ask for."""
    inline: InlineLoop | None
    """Hosts engines on the transport's thread, if that is done."""
    station: Station
    """Where jobs wait."""
    turns: Turns
    """To run, shared by all models."""
    metrics: Metrics
    clock: Callable[[], float]
    """Monotonic seconds."""


class Loading:
    """Makes the handle; its methods run on the threads of the instances."""

    def __init__(
        self, name: str, version: int, config: ModelConfig, around: Surroundings, lost: Lost
    ) -> None:
        self._name = name
        self._version = version
        self._config = config
        self._around = around
        self._lost = lost
        self._handle: Handle | None = None
        self._observing = Observing(name, version, around.metrics, around.clock)
        self._member = Member(config.weight)

    def first(self, engine: Engine) -> Work:
        """Find out how to batch, set up queue and slots, warm the engine."""
        config, around = self._config, self._around
        batching = find_batching(engine, config.max_batch_size, around.defaults.max_batch_size)
        preferred = preferred_rows(engine, config, batching.max_batch_size, around.clock)
        bounds = bounds_of(config, around.defaults, batching, preferred, engine.buckets)
        self._remark(engine.signature, bounds)
        served = self._served(engine, bounds)
        line = around.station.line(served.signature, bounds.limits)
        self._handle = Handle(
            name=self._name,
            version=self._version,
            config=config,
            signature=told(served),
            bounds=bounds,
            engine=engine.name,
            engine_reason=engine.reason,
            batch_reason=batching.reason,
            queue=line,
            arena=Arena(
                bounds.max_queue_rows, bounds.max_queue_bytes, level_rows=bounds.level_rows
            ),
            statistics=Statistics(),
            forecast=Forecast(bounds.limits.max_rows, config.instances),
            number=around.station.number(line),
            plan_state=engine.plan_state.value,
        )
        self._observing.begin(self._handle)
        return self._work(engine, served)

    def _remark(self, signature: Signature, bounds: Bounds) -> None:
        """Say what of the model's settings is not as it was meant."""
        config, where = self._config, {"model": self._name, "version": self._version}
        rows = config.max_queue_rows or self._around.defaults.max_queue_rows
        for remark in remarks(config, signature, bounds, rows):
            log.warning("a setting of a model has no effect", extra={**where, "why": remark})

    def later(self, engine: Engine) -> Work:
        """Warm an engine like the first one."""
        return self._work(engine, self._served(engine, self._made().bounds))

    def finish(self, instances: Sequence[Instance]) -> Handle:
        """Start the instances, one after the other, and return the handle of all.

        Raises:
            EngineError: one of them cannot be opened; the others end.
        """
        try:
            for instance in instances:
                instance.start().result()
        except BaseException:
            if self._handle is not None:
                self._handle.queue.close()
            raise
        handle = self._made()
        handle.instances = instances
        return handle

    def lost(self, error: BaseException) -> None:
        """End the handle after one of its engines was lost."""
        handle = self._made()
        handle.lose(error)
        self._lost(handle)

    def _made(self) -> Handle:
        assert self._handle is not None
        return self._handle

    def _work(self, engine: Engine, served: Engine) -> Work:
        handle = self._made()
        warm(engine, handle)
        host = self._host(engine, handle)
        runner = self._around.station.runner(served, handle.queue, handle.batched, self._observing)
        return Work(handle.queue, runner, host, self._loop(served, handle, runner))

    def _served(self, engine: Engine, bounds: Bounds) -> Engine:
        """Return the engine as batches reach it: in its turn, and with what sequences left."""
        clock, sequence = self._around.clock, self._config.sequence
        engine = shared(engine, self._around.turns, self._member, clock)
        if sequence is None:
            return engine
        kept = Sequences(sequence.max_sequences, sequence.idle_s, clock)
        batched = bounds.max_batch_size > 0
        return StatefulEngine(engine, sequence.states, kept, batched=batched)

    def _loop(self, engine: Engine, handle: Handle, runner: Runner) -> Callable[[], None] | None:
        """Return what overlaps the batches of an engine that can; None for others."""
        if not isinstance(engine, Overlapping):
            return None
        turns, member = self._around.turns, self._member
        return Overlap(handle.queue, runner, lambda: not turns.contended(member)).run

    def _host(self, engine: Engine, handle: Handle) -> InlineLoop | None:
        """Return who runs the batches; None: the instance's own thread."""
        around, config = self._around, self._config
        # The transport's thread waits for no turn; and requests whose answers are kept may be
        # admitted by a thread that cannot wake it.
        if around.inline is None or around.turns.concurrent or config.response_cache is not None:
            return None
        seconds = run_seconds(engine, 1, around.clock)
        if seconds is not None and seconds <= LONGEST_S:
            seconds = run_seconds(engine, max(1, handle.bounds.max_batch_size), around.clock)
        fixed = not free_dimensions(handle.signature, handle.batched)
        predictable = CPU in engine.name and engine.steady and fixed
        inline = runs_inline(around.asked, config.instances, predictable, seconds)
        handle.arrangement = "inline" if inline else "threads"
        return around.inline if inline else None
