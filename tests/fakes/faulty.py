"""An engine that fails on certain values: it kills its process, hangs, or is lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

from inferd_engines.delegate import Delegate
from inferd_engines.engine import Array, Engine, EngineError, EngineOptions
from inferd_engines.onnx import open_onnx

KILLS, KILLS_ONCE, LOSES_ONCE, HANGS_ONCE = 6660.0, 6661.0, 6662.0, 6663.0
"""Values of INPUT0. "Once": the first process that sees one, by a file beside the repository."""


class Faulty(Delegate):
    """ONNX Runtime, but for these values."""

    def __init__(self, engine: Engine, marks: Path) -> None:
        super().__init__(engine)
        self._marks = marks

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Look at the inputs first."""
        values = inputs["INPUT0"]
        if (values == KILLS).any() or self._first(values, KILLS_ONCE):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._first(values, LOSES_ONCE):
            raise EngineError("an illegal memory access was encountered", fatal=True)
        if self._first(values, HANGS_ONCE):
            threading.Event().wait()
        return super().run(inputs, outputs, rows)

    def close(self) -> None:
        """Hang, as a lost device would."""
        threading.Event().wait()

    def _first(self, values: Array, wanted: float) -> bool:
        mark = self._marks / f"{wanted:.0f}"
        if not (values == wanted).any() or mark.exists():
            return False
        mark.touch()
        return True


DEADLY = "deadly"
"""Name of a model that kills whoever opens it, while there is no file FORGIVEN beside it."""
FORGIVEN = "forgiven"


def open_faulty(path: Path, options: EngineOptions) -> Engine:
    """Open a model in ONNX Runtime."""
    engine = open_onnx(path, options)
    if path.parents[1].name == DEADLY and not path.with_name(FORGIVEN).exists():
        os.kill(os.getpid(), signal.SIGSEGV)
    return Faulty(engine, path.parents[3])


def open_on_dead_gpu(path: Path, options: EngineOptions) -> Engine:
    """Fail as every call does on a device that is gone."""
    raise EngineError(f"{path} on {options.providers}: the device is lost", fatal=True)


ONLY_ONCE = "only_once"
"""Name of a model that only the first process opens that tries."""
GATE = "gate"
"""Name of a pipe beside a model's file: whoever opens the model waits for the other end of it."""


def open_uneven(path: Path, options: EngineOptions) -> Engine:
    """Open a model in ONNX Runtime, but not in every process, or not at once."""
    if path.with_name(GATE).exists():
        path.with_name(GATE).read_bytes()
    if path.parents[1].name == ONLY_ONCE:
        try:
            path.with_name("opened").touch(exist_ok=False)
        except FileExistsError:
            raise EngineError("another process has it") from None
    return open_onnx(path, options)
