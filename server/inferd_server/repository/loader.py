"""Loads one version of a model: engines opened, batching tried, warmed, ready to serve."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from inferd_engines.engine import Engine, EngineError, EngineOptions, Opener, Signature

from inferd_server.errors import InferdError
from inferd_server.monitoring.metrics import Metrics
from inferd_server.monitoring.statistics import Statistics
from inferd_server.repository.config import ModelConfig
from inferd_server.repository.digest import ModelFiles
from inferd_server.repository.handle import Bounds, Handle
from inferd_server.repository.line import LocalStation, Station
from inferd_server.scheduler.job import Execution
from inferd_server.scheduler.slot import Arena
from inferd_server.settings.model import BatchingSettings, EngineSettings
from inferd_server.worker.batching import Batching, find_batching
from inferd_server.worker.inline import LONGEST_S, InlineLoop, runs_inline
from inferd_server.worker.instance import Instance, Work
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
        loading.arrange(self._engine.processes, self._inline, self._station)
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
        self._metrics.loaded(name, version, handle.engine)
        return handle

    def unload(self, handle: Handle, timeout: float | None) -> None:
        """Let a handle finish what it has, then close it; blocks."""
        # Requests that are still sent to it would find it closed.
        self._station.settle()
        handle.retire(timeout)
        self.forget(handle)

    def forget(self, handle: Handle) -> None:
        """Tell the metrics, once for each handle, that it serves no more."""
        self._metrics.unloaded(handle.name, handle.version, handle.engine)


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

    def arrange(self, asked: str, inline: InlineLoop | None, station: Station) -> None:
        """Say what is asked for, who hosts engines on the transport's thread, where jobs wait."""
        self._asked = asked
        self._inline = inline
        self._station = station

    def first(self, engine: Engine) -> Work:
        """Find out how to batch, set up queue and slots, warm the engine."""
        batching = find_batching(engine, self._config.max_batch_size, self._defaults.max_batch_size)
        preferred = self._preferred(engine, batching.max_batch_size)
        bounds = bounds_of(self._config, self._defaults, batching, preferred)
        line = self._station.line(engine.signature, bounds.limits)
        self._handle = Handle(
            name=self._name,
            version=self._version,
            config=self._config,
            signature=engine.signature,
            bounds=bounds,
            engine=engine.name,
            engine_reason=engine.reason,
            batch_reason=batching.reason,
            queue=line,
            arena=Arena(bounds.max_queue_rows, bounds.max_queue_bytes),
            statistics=Statistics(),
            number=self._station.number(line),
        )
        return self.later(engine)

    def later(self, engine: Engine) -> Work:
        """Warm an engine like the first one."""
        handle = self.handle()
        warm(engine, handle)
        runner = self._station.runner(engine, handle.queue, handle.batched, self._executed)
        return Work(handle.queue, runner, self._host(engine, handle))

    def _host(self, engine: Engine, handle: Handle) -> InlineLoop | None:
        """Return who runs the batches; None: the instance's own thread."""
        # Requests whose answers are kept may be admitted by a thread that cannot wake the
        # transport's.
        if self._inline is None or self._config.response_cache is not None:
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
        self._metrics.executed(self._name, self._version, run)


def bounds_of(
    config: ModelConfig, defaults: BatchingSettings, batching: Batching, preferred: int
) -> Bounds:
    """Merge a model's own settings with the server's defaults."""
    delay = config.max_queue_delay_ms
    rows = config.max_queue_rows or defaults.max_queue_rows
    return Bounds(
        max_batch_size=batching.max_batch_size,
        max_queue_delay=(defaults.max_queue_delay_ms if delay is None else delay) / 1000,
        max_queue_rows=max(rows, batching.max_batch_size),
        max_queue_bytes=defaults.max_queue_bytes,
        preferred_batch_size=preferred,
    )


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
