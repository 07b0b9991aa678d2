"""A repository over fake engines that a test can hold, break and look into."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

from inferd_engines.engine import Engine, EngineError, EngineOptions, Opener
from inferd_server.monitoring.metrics import Metrics
from inferd_server.repository.loader import Loader
from inferd_server.repository.repository import Repository, State
from inferd_server.settings.model import BatchingSettings, EngineSettings
from inferd_server.worker.batch_memory import MemoryGauge
from inferd_server.worker.fatal import End, go_on
from inferd_server.worker.row_trials import RowTrials

from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.server.callers import Caller, job_of

WITHIN = 30.0
T = TypeVar("T")


class Engines:
    """Opens fake engines and remembers them; can hold the opening, and fail it."""

    def __init__(self, make: Callable[[], FakeEngine] = FakeEngine) -> None:
        self.opened: list[FakeEngine] = []
        self.asked: list[tuple[str, EngineOptions]] = []
        self.failures: list[Exception] = []
        """Raised by the next openings, each one once."""
        self.opening = threading.Event()
        """Set when an opening has begun."""
        self.override: Opener | None = None
        """Opens instead, and nothing else is remembered of it than its engines."""
        self._make = make
        self._gate = threading.Event()
        self._gate.set()

    def hold(self) -> None:
        """Make openings wait until `release`."""
        self.opening.clear()
        self._gate.clear()

    def release(self) -> None:
        """Let held openings go on, and later ones through."""
        self._gate.set()

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Open."""
        self.asked.append((str(Path(*path.parts[-3:])), options))
        self.opening.set()
        if not self._gate.wait(WITHIN):
            raise EngineError("the test never let the engine open")
        if self.failures:
            raise self.failures.pop(0)
        engine = self._make() if self.override is None else self.override(path, options)
        assert isinstance(engine, FakeEngine)
        self.opened.append(engine)
        return engine

    @property
    def last(self) -> FakeEngine:
        """The engine opened last, which has forgotten the runs of its start."""
        engine = self.opened[-1]
        engine.batches.clear()
        engine.running.clear()
        return engine


class Bench:
    """A repository in a folder, with all that it is made of."""

    def __init__(
        self,
        folder: Path,
        opener: Opener | None = None,
        engine: EngineSettings | None = None,
        concurrent_loads: int = 2,
        memory: MemoryGauge | None = None,
        end: End = go_on,
    ) -> None:
        self.folder = folder
        self.clock = FakeClock()
        self.engines = Engines()
        self.metrics = Metrics()
        self.changes: list[list[str]] = []
        """All states, after each change."""
        self._changed = threading.Condition()
        self._written = 0
        self.missing: list[str] = []
        """Models that were told to be missing."""
        self.loader = Loader(
            opener or self.engines,
            BatchingSettings(),
            engine or EngineSettings(),
            self.metrics,
            self.clock,
            trials=RowTrials(self.clock, input_bytes=1 << 20),
            memory=memory,
            end=end,
        )
        self.repository = Repository(
            folder,
            self.loader,
            self._note,
            missing=self.missing.append,
            concurrent_loads=concurrent_loads,
        )

    def _note(self) -> None:
        with self._changed:
            self.changes.append(self.states)
            self._changed.notify_all()

    def await_changes(self, count: int) -> None:
        """Block until states changed so often."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.changes) >= count, WITHIN)

    def add(self, name: str, *versions: int, yaml: str = "") -> None:
        """Make the folders of a model with new files, and its model.yaml."""
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        for version in versions:
            folder = self.folder / name / str(version)
            folder.mkdir(exist_ok=True)
            self._written += 1
            (folder / "model.onnx").write_text(f"file {self._written}")
        (self.folder / name / "model.yaml").write_text(yaml)

    @property
    def states(self) -> list[str]:
        """Every version as NAME/VERSION STATE."""
        return [f"{e.name}/{e.version} {e.state.value}" for e in self.repository.entries()]

    @property
    def reasons(self) -> list[str]:
        """Why versions are as they are."""
        return [entry.reason for entry in self.repository.entries()]

    def submit(self, value: float, version: str = "", name: str = "m") -> Caller:
        """Send one row."""
        caller = Caller()
        handle = self.repository.resolve(name, version)
        assert handle.queue.submit(job_of(handle.arena, [value], caller, arrived=self.clock()))
        return caller

    def served(self) -> set[str]:
        """Return the versions and engines that the metrics call serving."""
        return {
            f"{sample.labels['model']}/{sample.labels['version']} {sample.labels['engine']}"
            for metric in self.metrics.registry.collect()
            for sample in metric.samples
            if sample.name == "inferd_engine"
        }

    def close(self) -> None:
        """Let everything go and end every engine."""
        self.engines.release()
        for engine in self.engines.opened:
            engine.release()
        assert self.repository.close(WITHIN)
        assert all(engine.closed for engine in self.engines.opened)
        assert not any(entry.state is State.READY for entry in self.repository.entries())


def apart(call: Callable[[], T]) -> Future[T]:
    """Call on a thread; the future has the result."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
