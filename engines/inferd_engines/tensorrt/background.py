"""Builds plans that are missing while another engine serves."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from enum import Enum
from pathlib import Path
from queue import SimpleQueue

from inferd_engines.model_files import ModelFiles
from inferd_engines.tensorrt.errors import BuildFailed, PlanMissing, TensorRTError
from inferd_engines.tensorrt.opener import Wanted
from inferd_engines.tensorrt.options import flags_of
from inferd_engines.tensorrt.store import PlanStore

log = logging.getLogger(__name__)
SAID = 2000
"""Characters of a failed build's output that are kept."""


class State(Enum):
    """Where a plan stands."""

    BUILDING = "BUILDING"
    BUILT = "BUILT"
    FAILED = "FAILED"


class Builds:
    """Builds one plan after the other, on a thread. Any thread may call any method.

    A failed build is not tried again before the process starts anew: it would fail again, and
    take the GPU from those who serve.
    """

    def __init__(self, build: Callable[[Wanted], None]) -> None:
        """Start with nothing to do; `build` puts a plan into the store, and blocks."""
        self._build = build
        self._ended: Callable[[Path], None] = lambda _: None
        self._states: dict[str, State] = {}
        self._reasons: dict[str, str] = {}
        self._work: SimpleQueue[Wanted] = SimpleQueue()
        self._lock = threading.Lock()
        threading.Thread(target=self._live, name="plan builds", daemon=True).start()

    def __call__(self, wanted: Wanted) -> TensorRTError:
        """Have a plan built, unless that was done before; return why there is none now."""
        digest = wanted.key.digest
        with self._lock:
            state = self._states.get(digest)
            if state is None:
                self._states[digest] = State.BUILDING
                self._work.put(wanted)
        if state is State.FAILED:
            return BuildFailed(f"FAILED, the plan could not be built: {self._reasons[digest]}")
        if state is State.BUILT:
            return BuildFailed("FAILED, the plan was built and is not in the store")
        return PlanMissing("BUILDING, the plan is built meanwhile")

    def when_ended(self, then: Callable[[Path], None]) -> None:
        """Tell of the model file of every build that ends from now on, with a plan or without."""
        self._ended = then

    def state(self, wanted: Wanted) -> State | None:
        """Return where a plan stands; None if nobody asked for it."""
        return self._states.get(wanted.key.digest)

    def _live(self) -> None:
        while True:
            wanted = self._work.get()
            try:
                self._build(wanted)
            except Exception as error:
                self._failed(wanted, error)
            else:
                with self._lock:
                    self._states[wanted.key.digest] = State.BUILT
                log.info("a plan was built", extra={"model": str(wanted.model)})
            self._tell(wanted.model)

    def _failed(self, wanted: Wanted, error: Exception) -> None:
        log.error("a plan was not built", extra={"model": str(wanted.model), "why": str(error)})
        with self._lock:
            self._reasons[wanted.key.digest] = str(error)
            self._states[wanted.key.digest] = State.FAILED

    def _tell(self, model: Path) -> None:
        try:
            self._ended(model)
        except Exception:
            log.exception("a model could not be loaded anew", extra={"model": str(model)})


def build_apart(store: Path, wanted: Wanted) -> None:
    """Build a plan in a process of its own: it may take the memory, and the process, with it.

    Raises:
        BuildFailed: it ended without a plan; with what it said last.
    """
    if wanted.files is not None:
        build_sealed(store, wanted, wanted.files)
        return
    done = subprocess.run(build_command(store, wanted), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(reason_of(done.returncode, done.stderr))


def build_sealed(store: Path, wanted: Wanted, files: ModelFiles) -> None:
    """Build the plan of a sealed model in a process of its own, through pipes, and seal it.

    Args:
        store: where it is kept.
        wanted: which.
        files: of the model.

    Raises:
        BuildFailed: it ended without a plan; with what it said last.
    """
    plans = PlanStore(store)
    command = [*build_command(store, wanted), "--through-pipes"]
    with plans.building(wanted.key):
        if plans.find(wanted.key) is not None:
            return
        try:
            done = subprocess.run(command, input=files.content(), capture_output=True, check=False)
        finally:
            files.drop()
        if done.returncode:
            raise BuildFailed(reason_of(done.returncode, done.stderr.decode(errors="replace")))
        plan = files.protect(wanted.key.digest, done.stdout)
        plans.publish(wanted.key, plan, {"precision": wanted.options.precision, "sealed": True})


def reason_of(code: int, said: str) -> str:
    """Return why a build failed.

    Args:
        code: that its process ended with.
        said: what it wrote to standard error; the last line is the reason, if it gave one.
    """
    last = "".join(said.strip().splitlines()[-1:])[-SAID:]
    if code > 0 and last:
        return last
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"code {code}"
    return f"its process ended with {how}" + (f", and said last: {last}" if last else "")


def build_command(store: Path, wanted: Wanted) -> Sequence[str]:
    """Return the command that builds a plan."""
    module = "inferd_engines.tensorrt"
    flags = flags_of(wanted.options)
    return [sys.executable, "-m", module, str(wanted.model), "--output", str(store), *flags]
