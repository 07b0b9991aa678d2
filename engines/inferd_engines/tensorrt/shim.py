"""Finds TensorRT in whatever flavour is installed, and says what it can do.

Capabilities are looked up by name, never told from version numbers: 10.x, 11.x and the RTX
flavour differ in what they have, not in how it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from inferd_engines.tensorrt.errors import LibraryMissing, TensorRTError
from inferd_engines.tensorrt.recording import Recording

T = TypeVar("T")
BINDINGS = "_bindings"
FLAVOURS = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx" + BINDINGS, "tensorrt_lean")
"""Modules with the same interface, most able first. The lean one runs plans and builds none;
the bindings are what the module of the same name imports, and have wheels where that has none.
"""


@dataclass(frozen=True, slots=True)
class Library:
    """An imported flavour of TensorRT."""

    module: Any
    flavour: str
    version: str

    @property
    def builds(self) -> bool:
        """True if it makes plans from ONNX files, rather than running them only."""
        return hasattr(self.module, "Builder") and hasattr(self.module, "OnnxParser")

    @property
    def ahead_of_time(self) -> bool:
        """True if plans are built without a GPU, for the compute capabilities that are named."""
        return hasattr(self.module, "ComputeCapability")

    @property
    def timing_cache(self) -> bool:
        """True if tactics are timed at build; the RTX flavour has the call and ignores it."""
        return not self.ahead_of_time and hasattr(self.module, "ITimingCache")

    @property
    def weakly_typed(self) -> bool:
        """True if precision is a flag of the builder (10.x) besides being in the graph."""
        return hasattr(self.module.BuilderFlag, "FP16") if self.builds else False

    @property
    def capabilities(self) -> Sequence[str]:
        """Compute capabilities that plans can be built for, such as "8.9"."""
        names = getattr(self.module, "ComputeCapability", None)
        found = [] if names is None else [name for name in dir(names) if name[:2] == "SM"]
        return sorted((f"{name[2:-1]}.{name[-1]}" for name in found), key=float)


def find(names: Sequence[str] = FLAVOURS, load: Callable[[str], Any] = import_module) -> Library:
    """Import the first flavour that can be.

    Raises:
        LibraryMissing: none can, with the reason of each that is installed.
    """
    reasons = []
    for name in names:
        try:
            module = load(name)
        except ModuleNotFoundError as error:
            # Its own absence needs no words; something that it needs does.
            if error.name != name:
                reasons.append(f"{name}: {error}")
            continue
        except (ImportError, OSError, RuntimeError) as error:
            # A wheel without its library fails in any of these ways.
            reasons.append(f"{name}: {error}")
            continue
        return Library(module, name.removesuffix(BINDINGS), str(module.__version__))
    absent = f"none of {', '.join(names)} is installed (pip install 'inferd[gpu]')"
    raise LibraryMissing("TensorRT cannot be imported: " + ("; ".join(reasons) or absent))


def required(
    value: T | None, what: str, recording: Recording, kind: type[TensorRTError] = TensorRTError
) -> T:
    """Return what TensorRT made, where it returns None or False instead of raising.

    Args:
        value: that a call returned.
        what: the call was to do, for the message.
        recording: of the logger and the error recorder.
        kind: of error.

    Raises:
        TensorRTError: the value is None or False; with the last lines of the recording.
    """
    if value is None or value is False:
        raise kind(recording.explain(f"TensorRT could not {what}"))
    return value
