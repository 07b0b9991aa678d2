"""Loads one version of a model: engines opened, batching tried, warmed, ready to serve."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from inferd_engines.engine import (
    Engine,
    EngineError,
    EngineOptions,
    Opener,
    Overlapping,
    Signature,
)

from inferd_server.errors import InferdError
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.repository.config import ModelConfig
from inferd_server.repository.digest import ModelFiles
from inferd_server.repository.handle import Bounds, Handle
from inferd_server.repository.line import LocalStation, Runner, Station
from inferd_server.scheduler.forecast import Forecast
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.sizes import padding
from inferd_server.scheduler.slot import Arena
from inferd_server.scheduler.steering import Chosen, Steering
from inferd_server.scheduler.turns import Member, Turns
from inferd_server.sequences.engine import StatefulEngine
from inferd_server.sequences.store import Sequences
from inferd_server.settings.model import BatchingSettings, EngineSettings
from inferd_server.worker.batching import Batching, find_batching
from inferd_server.worker.inline import LONGEST_S, InlineLoop, runs_inline
from inferd_server.worker.instance import Instance, Work
from inferd_server.worker.overlap import Overlap
from inferd_server.worker.sharing import shared
from inferd_server.worker.timing import run_seconds, worthwhile_rows

log = logging.getLogger(__name__)
Lost = Callable[[Handle], None]
CPU = "CPU"
"""Stands in the names of engines that run on the processor."""


class Loader:
    """Turns model files into handles. May be called from any thread."""

    def __init__(
        self,
        opener: Opener,
        batching: BatchingSettings,
        engine: EngineSettings,
        metrics: Metrics,
        clock: Callable[[], float],
        inline: InlineLoop | None = None,
        station: Station | None = None,
    ) -> None:
        """Know how to load.

        Args:
            opener: opens model files.
            batching: defaults of the models.
            engine: options of the engines.
            metrics: told of what is loaded and run.
            clock: monotonic seconds.
            inline: hosts the models that are quick enough; None: every instance has a thread.
            station: where requests wait; None: in this process.
        """
        self._inline = inline
        self._station = station or LocalStation(clock)
        self._turns = Turns(engine.concurrent_runs)
        self._opener = opener
        self._batching = batching
        self._engine = engine
        self._metrics = metrics
        self._clock = clock

    def load(self, name: str, version: int, path: Path, config: ModelConfig, lost: Lost) -> Handle:
        """Open every instance and return once all are ready; blocks.

        The first instance opens alone: what it finds out shapes queue and slots.

        Args:
            name: of the model.
            version: of the model.
            path: its file.
            config: its model.yaml.
            lost: called after the handle lost an engine; it serves no more then.

        Raises:
            EngineError: the model cannot be served.
        """
        options = EngineOptions(
            self._engine.engine_threads, self._engine.engine_providers, config.engine_options
        )
        files = ModelFiles(path.parent, config)
        loading = Loading(name, version, config, self._batching, self._metrics, self._clock, lost)
        loading.arrange(self._engine.processes, self._inline, self._station, self._turns)
        instances = [
            Instance(
                f"{name}-{version}-{index}",
                lambda: self._opener(path, options),
                loading.later if index else loading.first,
                loading.lost,
            )
            for index in range(config.instances)
        ]
        try:
            for instance in instances:
                instance.start().result()
        except BaseException:
            loading.abandon()
            raise
        handle = loading.handle()
        handle.instances = instances
        handle.digest = files.digest()
        if handle.lost:
            raise EngineError(handle.lost)
        self._metrics.loaded(name, version, handle.engine, handle.plan_state)
        return handle

    def unload(self, handle: Handle, timeout: float | None) -> None:
        """Let a handle finish what it has, then close it; blocks."""
        # Requests that are still sent to it would find it closed.
        self._station.settle()
        handle.retire(timeout)
        self.forget(handle)

    def forget(self, handle: Handle) -> None:
        """Tell the metrics, once for each handle, that it serves no more."""
        self._metrics.unloaded(handle.name, handle.version, handle.engine, handle.plan_state)


class Loading:
    """A model version while its instances open; its methods run on their threads."""

    def __init__(
        self,
        name: str,
        version: int,
        config: ModelConfig,
        defaults: BatchingSettings,
        metrics: Metrics,
        clock: Callable[[], float],
        lost: Lost,
    ) -> None:
        self._name = name
        self._version = version
        self._config = config
        self._defaults = defaults
        self._metrics = metrics
        self._clock = clock
        self._lost = lost
        self._handle: Handle | None = None
        self._asked = "threads"
        self._inline: InlineLoop | None = None
        self._station: Station = LocalStation(clock)
        self._turns = Turns(0)
        self._member = Member(config.weight)
        self._steering: Steering | None = None
        self._steers = threading.Lock()

    def arrange(
        self, asked: str, inline: InlineLoop | None, station: Station, turns: Turns
    ) -> None:
        """Say what the process has for its models.

        Args:
            asked: for the arrangement.
            inline: hosts engines on the transport's thread, if that is done.
            station: where jobs wait.
            turns: to run, shared by all models.
        """
        self._asked = asked
        self._inline = inline
        self._station = station
        self._turns = turns

    def first(self, engine: Engine) -> Work:
        """Find out how to batch, set up queue and slots, warm the engine."""
        batching = find_batching(engine, self._config.max_batch_size, self._defaults.max_batch_size)
        preferred = self._preferred(engine, batching.max_batch_size)
        bounds = bounds_of(self._config, self._defaults, batching, preferred, engine.buckets)
        served = self._served(engine, bounds)
        line = self._station.line(served.signature, bounds.limits)
        self._handle = Handle(
            name=self._name,
            version=self._version,
            config=self._config,
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
            forecast=Forecast(bounds.limits.max_rows, self._config.instances),
            number=self._station.number(line),
            plan_state=engine.plan_state.value,
        )
        self._steering = self._steered(bounds)
        return self._work(engine, served)

    def later(self, engine: Engine) -> Work:
        """Warm an engine like the first one."""
        return self._work(engine, self._served(engine, self.handle().bounds))

    def _work(self, engine: Engine, served: Engine) -> Work:
        handle = self.handle()
        warm(engine, handle)
        host = self._host(engine, handle)
        runner = self._station.runner(served, handle.queue, handle.batched, self._executed)
        return Work(handle.queue, runner, host, self._loop(served, handle, runner))

    def _served(self, engine: Engine, bounds: Bounds) -> Engine:
        """Return the engine as batches reach it: in its turn, and with what sequences left."""
        engine = shared(engine, self._turns, self._member, self._clock)
        sequence = self._config.sequence
        if sequence is None:
            return engine
        kept = Sequences(sequence.max_sequences, sequence.idle_s, self._clock)
        batched = bounds.max_batch_size > 0
        return StatefulEngine(engine, sequence.states, kept, batched=batched)

    def _steered(self, bounds: Bounds) -> Steering | None:
        """Return what keeps the model below its target; None without one."""
        target = self._config.target_p99_ms
        if target is None or not bounds.max_batch_size:
            return None
        # The target bounds the delay where nothing else does.
        delay = bounds.max_queue_delay or target / 2000
        largest = Chosen(bounds.limits.max_rows, delay)
        return Steering(target / 1000, Chosen(largest.rows, bounds.max_queue_delay), largest)

    def _loop(self, engine: Engine, handle: Handle, runner: Runner) -> Callable[[], None] | None:
        """Return what overlaps the batches of an engine that can; None for others."""
        if not isinstance(engine, Overlapping):
            return None
        turns, member = self._turns, self._member
        return Overlap(handle.queue, runner, lambda: not turns.contended(member)).run

    def _host(self, engine: Engine, handle: Handle) -> InlineLoop | None:
        """Return who runs the batches; None: the instance's own thread."""
        # The transport's thread waits for no turn; and requests whose answers are kept may be
        # admitted by a thread that cannot wake it.
        cached = self._config.response_cache is not None
        if self._inline is None or self._turns.concurrent or cached:
            return None
        seconds = run_seconds(engine, 1, self._clock)
        if seconds is not None and seconds <= LONGEST_S:
            seconds = run_seconds(engine, max(1, handle.bounds.max_batch_size), self._clock)
        fixed = not free_dimensions(handle.signature, handle.batched)
        predictable = CPU in engine.name and engine.steady and fixed
        inline = runs_inline(self._asked, self._config.instances, predictable, seconds)
        handle.arrangement = "inline" if inline else "threads"
        return self._inline if inline else None

    def _preferred(self, engine: Engine, most: int) -> int:
        """Return the rows that requests are put together to."""
        if engine.buckets:
            most = min(most, max(engine.buckets))
        asked = self._config.preferred_batch_size
        if asked is not None:
            return min(asked, most)
        if most < 2 or self._config.warm_up == []:
            return most
        return worthwhile_rows(lambda rows: run_seconds(engine, rows, self._clock, 2), most)

    def handle(self) -> Handle:
        """Return the handle that the first instance made."""
        assert self._handle is not None
        return self._handle

    def lost(self, error: BaseException) -> None:
        """End the handle after one of its engines was lost."""
        handle = self.handle()
        handle.lose(error)
        self._lost(handle)

    def abandon(self) -> None:
        """End the instances that are ready after another one failed."""
        if self._handle is not None:
            self._handle.queue.close()

    def _executed(self, run: Execution) -> None:
        self.handle().statistics.executed(run)
        padded = padding(run.rows, self.handle().bounds.sizes)
        self._metrics.executed(self._name, self._version, run, padded)
        if self._steering is not None:
            self._steer(self._steering, run)

    def _steer(self, steering: Steering, run: Execution) -> None:
        with self._steers:
            chosen = steering.observe(run, self._clock())
        if chosen is not None:
            self.handle().queue.limit(chosen.rows, chosen.delay)
            self._metrics.steered(self._name, self._version, chosen.rows, chosen.delay)


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


def told(engine: Engine) -> Signature:
    """Return what callers know of a model."""
    return engine.told if isinstance(engine, StatefulEngine) else engine.signature


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


def unexpected(error: Exception) -> Exception | None:
    """Return what deserves a stack trace: anything that is not raised on purpose."""
    return None if isinstance(error, EngineError | InferdError) else error
