"""The engine interface: what the server knows of a runtime that executes models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from inferd_engines.model_files import ModelFiles

Array: TypeAlias = npt.NDArray[Any]
RowSpec: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]
"""dtype and shape of one row of one input."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model: shape with None for a free dimension; BYTES is object.

    `axes` names the free dimensions where the model file does ("" elsewhere).
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...]
    axes: tuple[str, ...] = ()
    text: bool = False
    """True if BYTES elements must be UTF-8: the model cannot take others."""
    default: bytes | None = None
    """The elements that stand in for those of an input that is left out; None: it may not be."""

    @property
    def shared(self) -> bool:
        """True for an input that may be left out: one value is for all rows of a run."""
        return self.default is not None


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, in the order of its file, batch dimension included."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What a caller may ask of any engine; an engine rejects what it does not know."""

    threads: int = 0
    """Threads inside one run; 0 lets the engine choose."""
    providers: tuple[str, ...] = ()
    """Runtime-specific devices, most wanted first; empty means the engine's default."""
    extra: Mapping[str, str] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    """Custom operators: names of Python packages that bring some, or libraries' paths."""
    files: ModelFiles | None = None
    """The model's files, where they may have been read already; None: those on disk."""
    cores: int = 0
    """That the process counts on; 0: as many as affinity and CPU limits leave."""


class PlanState(Enum):
    """Where the plan of a model stands, a plan being what a GPU's own runtime makes of it."""

    NONE = ""
    """Nobody asked for one."""
    READY = "READY"
    """It serves."""
    BUILDING = "BUILDING"
    """Another engine serves meanwhile."""
    FALLBACK = "FALLBACK"
    """Another engine serves, because nothing here could run a plan."""
    FAILED = "FAILED"
    """Another engine serves, because the plan could not be built, or is not right."""


class Engine(Protocol):
    """One loaded model on one device.

    Opened, used and closed by one thread; on the processor by one at a time.
    """

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""

    @property
    def name(self) -> str:
        """Runtime and device that really serve, such as "onnxruntime/CPUExecutionProvider"."""

    @property
    def version(self) -> str:
        """Of the runtime."""

    @property
    def reason(self) -> str:
        """Why this device and not the one asked for; empty where they agree."""

    @property
    def plan_state(self) -> PlanState:
        """Where the model's plan stands."""

    @property
    def steady(self) -> bool:
        """True if the time of a run depends on shapes alone, and not on values."""

    @property
    def buckets(self) -> Sequence[int]:
        """Batch sizes that it runs without padding; empty means any."""

    def run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], rows: int
    ) -> Mapping[str, Array]:
        """Execute once and return every output by name.

        `inputs` are contiguous and of the signature's dtypes; `outputs` maps names to
        buffers to write into, and may be empty or partial: what it lacks is allocated.
        A buffer has the exact shape and dtype of its output. BYTES elements are `bytes`,
        both ways.
        `rows` is the size of the batch dimension (1 for a model without one).

        Raises:
            EngineError: the runtime failed; the engine remains usable unless `fatal`.
        """

    def warm(self, rows: int) -> None:
        """Run once on zeros with that many rows and free dimensions of 1."""

    def memory(self) -> int:
        """Bytes held on the device, as far as the runtime tells; 0 when it does not."""

    def close(self) -> None:
        """Give everything back. Safe to call twice."""


@runtime_checkable
class Overlapping(Protocol):
    """What an engine has besides, whose next run may begin before the last one has ended.

    Two runs may be under way, and `run` is allowed while one is.
    """

    def begin(self, inputs: Mapping[str, Array], rows: int) -> Any:
        """Start a run of at most the largest of the engine's buckets, and return what ends it.

        The inputs must stay as they are until then.

        Raises:
            EngineError: as `run`; nothing was begun.
        """

    def finish(self, begun: Any, outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Wait for a run that was begun, and return every output by name, as `run` does.

        Raises:
            EngineError: as `run`; the run is over.
        """


@runtime_checkable
class Shrinking(Protocol):
    """What an engine may have besides: it can give memory back that it keeps for its next runs."""

    def shrink(self, inputs: Mapping[str, Array]) -> None:
        """Run once more, and keep no more than the model itself takes.

        Raises:
            EngineError: as `run`.
        """


@runtime_checkable
class Overridable(Protocol):
    """What an engine may have besides: inputs that may be left out of a run."""

    @property
    def overridable(self) -> Sequence[Tensor]:
        """They, with their values; the signature lacks them."""


@runtime_checkable
class Registering(Protocol):
    """What an engine may have besides: it reads inputs where they lie, without a copy."""

    def register(self, memory: Array) -> bool:
        """Lock memory for the device until the engine is closed; on the engine's thread.

        From then on, inputs of `run` that lie in it in one piece need no copy on the host. Only
        whole pages can be locked, and a page that another engine had locked is not locked again.

        Args:
            memory: contiguous, mapped until the engine is closed.

        Returns:
            False if it cannot be locked, with the reason in the log: then nothing changes.
        """


class Opener(Protocol):
    """Opens a model file as an engine, on the calling thread."""

    def __call__(self, path: Path, options: EngineOptions) -> Engine:
        """Load the model.

        Raises:
            EngineError: the file is missing, damaged or not supported.
        """


class EngineError(Exception):
    """An engine could not load or run a model.

    Attributes:
        fatal: this process must not go on.
        bad_input: the values that it was given are to blame, and the message tells who sent
            them what is wrong.
        plan_state: where the model's plan stands, after a plan could not be opened.
    """

    plan_state = PlanState.NONE

    def __init__(self, message: str, *, fatal: bool = False, bad_input: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal
        self.bad_input = bad_input


class UntrustedFiles(EngineError):
    """A model's files are not what they must be: every engine would be given the same.

    Attributes:
        reason: which way, for machines.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason
