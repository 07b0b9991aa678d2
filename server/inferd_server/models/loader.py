"""Loads one version of a model: engines opened, batching tried, warmed, ready to serve."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from inferd_engines.engine import EngineError, EngineOptions, Opener
from inferd_engines.model_files import ModelFiles
from inferd_seal.trusted_files import reader_of

from inferd_server.batching.fair_share import FairShare
from inferd_server.batching.fatal import End, go_on
from inferd_server.batching.inline import InlineLoop
from inferd_server.batching.instance import Instance
from inferd_server.batching.lanes import LanePool
from inferd_server.batching.queue import LocalQueues, Queues
from inferd_server.errors import InferdError
from inferd_server.memory import give_back
from inferd_server.models.batch_memory import MemoryGauge
from inferd_server.models.config import ModelConfig, is_library
from inferd_server.models.digest import answers_digest
from inferd_server.models.entries import ModelEntry
from inferd_server.models.files import link_roots
from inferd_server.models.layout import config_folder
from inferd_server.models.loading import Loading, Lost, Surroundings
from inferd_server.models.reference_data import DriftKeeper
from inferd_server.models.row_trials import RowTrials
from inferd_server.models.triton_config import DeclaredTensor
from inferd_server.models.trust import demands_of
from inferd_server.models.version import Handle
from inferd_server.monitoring.busy import BusyLine
from inferd_server.monitoring.drift.references import References
from inferd_server.monitoring.metrics import Metrics
from inferd_server.settings.model import BatchingSettings, EngineSettings, Settings
from inferd_server.settings.security import SealSettings

NO_FOLDER = "the processes of a server share references below verdict_store, and that is empty"
NO_DRIFT = DriftKeeper(References(None), 0, 0.0, off=True)
NO_SEQUENCES = (
    "its requests build on each other, and replica processes share none of them: "
    "--processes split serves it"
)


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
        queues: Queues | None = None,
        settle: Callable[[], None] = lambda: None,
        trials: RowTrials | None = None,
        roots: Callable[[Path], Sequence[Path]] = lambda _: (),
        memory: MemoryGauge | None = None,
        end: End = go_on,
        replicated: bool = False,
        trust: SealSettings | None = None,
        drift: DriftKeeper = NO_DRIFT,
    ) -> None:
        """Keep how to load.

        Args:
            opener: opens model files.
            batching: defaults of the models.
            engine: options of the engines.
            metrics: told of what is loaded and run.
            clock: monotonic seconds.
            inline: hosts the models that are quick enough; None: every instance has a thread.
            queues: makes the models' queues; None: requests come from this process.
            settle: returns once whoever sends requests knows the versions that serve now.
            trials: of models' rows; None: none is kept.
            roots: returns the folders that links to files of a model may lead into.
            memory: tells of this process's memory; None: it is asked.
            end: called with an error after which an engine can run nothing more.
            replicated: other processes have the same models, and get some of the requests.
            trust: what is demanded of files; None: nothing.
            drift: keeps what requests are compared with.
        """
        self._replicated = replicated
        self._demands = demands_of(trust or SealSettings())
        self._memory = memory or MemoryGauge()
        self._batch_limits: dict[tuple[str, int], int] = {}
        self._opener = opener
        self._roots = roots
        self._engine = engine
        self._metrics = metrics
        self._settle = settle
        self._end = end
        self._lanes = LanePool()
        self._surroundings = self._surroundings_of(
            batching, clock, inline, queues or LocalQueues(clock), trials or RowTrials(clock), drift
        )
        self.drift = drift
        """What keeps the references of this process's versions."""

    def _surroundings_of(
        self,
        batching: BatchingSettings,
        clock: Callable[[], float],
        inline: InlineLoop | None,
        queues: Queues,
        trials: RowTrials,
        drift: DriftKeeper,
    ) -> Surroundings:
        return Surroundings(
            batching,
            self._engine.processes,
            inline,
            queues,
            FairShare(self._engine.concurrent_runs, clock),
            self._lanes,
            self._metrics,
            clock,
            trials,
            self._memory,
            self._end,
            drift,
        )

    def load(
        self,
        name: str,
        version: int,
        path: Path,
        config: ModelConfig,
        lost: Lost,
        declared: tuple[DeclaredTensor, ...] = (),
    ) -> Handle:
        """Open every instance and return once all are ready; blocks.

        The first instance opens alone: what it finds out shapes queue and slots.

        Args:
            name: of the model.
            version: of the model.
            path: its file.
            config: its model.yaml.
            lost: called after the handle lost an engine; it serves no more then.
            declared: what its config.pbtxt says of inputs and outputs.

        Raises:
            EngineError: the model cannot be served.
            UntrustedFiles: its files are not what was sealed or signed.
        """
        if self._replicated and config.sequence is not None:
            raise EngineError(NO_SEQUENCES)
        # Read once for all instances, which are of one model then.
        reader = reader_of(self._demands, name, version, path)
        files = ModelFiles(path, self._roots(path), self._memory.headroom, reader)
        most_rows = self._batch_limits.get((name, version))
        loading = Loading(
            name, version, files, config, self._surroundings, lost, most_rows, declared
        )
        try:
            handle = loading.finish(self._instances(loading, files, config))
            handle.digest = answers_digest(files, config)
        finally:
            files.drop()
            give_back()
        if handle.lost:
            raise EngineError(handle.lost)
        self._metrics.loaded(name, version, handle.engine, handle.plan_state)
        return handle

    def _instances(
        self, loading: Loading, files: ModelFiles, config: ModelConfig
    ) -> list[Instance]:
        """Return the instances of a model, which are opened once they start."""
        options = EngineOptions(
            self._engine.engine_threads,
            self._engine.engine_providers,
            config.engine_options,
            custom_operators(files.model, config.custom_ops),
            files,
            self._engine.cores,
        )
        return [
            Instance(
                f"{loading.name}-{loading.version}-{index}",
                lambda: self._opener(files.model, options),
                loading.later if index else loading.first,
                loading.lost,
                self._end,
            )
            for index in range(config.instances)
        ]

    def unload(self, handle: Handle, timeout: float | None, settle: bool = True) -> None:
        """Let a handle finish what it has, then close it; blocks.

        With `settle`, whoever sends requests knows first that it takes no more.
        """
        if settle:
            # Requests that are still sent to it would find it closed.
            self._settle()
        handle.retire(timeout)
        self.forget(handle)
        if settle:
            # The allocator keeps large blocks, which messages need, and models leave behind.
            give_back()

    def limit_batches(self, rows: Mapping[tuple[str, int], int]) -> None:
        """Bound the rows of batches, by name and version of the models that are loaded later."""
        self._batch_limits.update(rows)

    def release_idle(self) -> None:
        """Give the memory of lanes without a request back to the system."""
        self._lanes.release_idle()
        give_back()

    def gauges(self) -> Mapping[str, float]:
        """Return what lanes hold of this process's memory."""
        return self._lanes.gauges()

    def lines(self, entries: Iterable[ModelEntry]) -> Mapping[str, BusyLine]:
        """Return what may be busy at a time: each model version, and those that take turns."""
        handles = [entry.handle for entry in entries if entry.handle is not None]
        found = {f"{h.name}/{h.version}": BusyLine(len(h.busy), h.busy) for h in handles if h.busy}
        shared = self._surroundings.share.concurrent
        if shared and found:
            engines = [busy for handle in handles for busy in handle.busy]
            found[""] = BusyLine(min(shared, len(engines)), engines)
        inline = self._surroundings.inline
        if inline is not None and any(handle.arrangement == "inline" for handle in handles):
            found["inline"] = BusyLine(1, [inline.busy])
        return found

    def forget(self, handle: Handle) -> None:
        """Tell the metrics, once for each handle, that it serves no more."""
        self._metrics.unloaded(handle.name, handle.version, handle.engine, handle.plan_state)


def loader_of(
    settings: Settings,
    opener: Opener,
    metrics: Metrics,
    clock: Callable[[], float],
    inline: InlineLoop | None = None,
    queues: Queues | None = None,
    settle: Callable[[], None] = lambda: None,
    replicated: bool = False,
    end: End = go_on,
) -> Loader:
    """Return the loader that the settings describe; arguments as `Loader`'s."""
    models = settings.repository
    return Loader(
        opener,
        settings.batching,
        settings.engine,
        metrics,
        clock,
        inline,
        queues,
        settle,
        trials=RowTrials(
            clock, settings.verdict_folder(os.environ), settings.listen.max_message_bytes
        ),
        roots=partial(link_roots, models.model_repository, models.link_folders),
        end=end,
        replicated=replicated,
        trust=settings.seal,
        drift=drift_keeper(settings, alone=queues is None and not replicated),
    )


def drift_keeper(settings: Settings, *, alone: bool) -> DriftKeeper:
    """Return what a process has for the references of its versions.

    Args:
        settings: of the server.
        alone: no other process looks at its requests.
    """
    drift = settings.drift
    folder = settings.reference_folder(os.environ)
    problem = "" if alone or folder is not None else NO_FOLDER
    return DriftKeeper(
        References(folder),
        drift.drift_learn_rows,
        settings.monitoring.sample_share,
        off=not drift.drift_cpu_share,
        problem=problem,
    )


def custom_operators(model: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the libraries that a model.yaml names: packages as they are, files with their folder.

    Args:
        model: the file of a version; libraries lie beside its model.yaml.
        names: as in `custom_ops`.
    """
    folder = config_folder(model)
    return tuple(str(folder / name) if is_library(name) else name for name in names)


def unexpected(error: Exception) -> Exception | None:
    """Return what deserves a stack trace: anything that is not raised on purpose."""
    return None if isinstance(error, EngineError | InferdError) else error
