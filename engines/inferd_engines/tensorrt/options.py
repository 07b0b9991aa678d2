"""What may be asked of a build and of runs, and how people write it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.profiles import BUCKETS, Range, Shape

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")
"""Of the graph, but for tf32, which multiplies fp32 with 10 bits of its fraction: faster, and as
near as fp16. int8 and fp8 come from Q/DQ nodes that are there already."""
LEVELS = range(6)
WAITS = ("spin", "block")
"""How the engine's thread waits for the GPU: on a core of its own, or asleep, some us longer."""
COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")
PREFIX = "tensorrt."
"""Of the entries of `engine_options` that are meant for TensorRT."""
RANGE = "range."
WAIT = "wait"
"""An option of runs, not of builds."""
CURRENT = "current"
"""As a target: the GPU of the host that builds."""
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How a plan is built."""

    precision: str = "fp32"
    buckets: tuple[int, ...] = BUCKETS
    """Batch sizes with a profile each."""
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """Of inputs with free dimensions besides the batch, without it."""
    batched: bool = True
    targets: tuple[str, ...] = ()
    """Compute capabilities, such as "8.9"; empty: the flavour's default, or this GPU."""
    optimization_level: int | None = None
    """0 (quick to build) to 5; None leaves it to TensorRT."""
    workspace_bytes: int | None = None
    version_compatible: bool = False
    """Works with later versions, too. The plan then carries code that loading runs."""
    hardware_compatibility: str = "none"

    def __post_init__(self) -> None:
        """Check what does not depend on the model.

        Raises:
            BuildFailed: an option is none of those there are.
        """
        if self.precision not in PRECISIONS:
            raise BuildFailed(f"precision {self.precision!r} is none of {', '.join(PRECISIONS)}")
        if self.hardware_compatibility not in COMPATIBILITIES:
            raise BuildFailed(
                f"hardware compatibility {self.hardware_compatibility!r} is none of "
                f"{', '.join(COMPATIBILITIES)}"
            )
        if self.optimization_level not in (None, *LEVELS):
            raise BuildFailed(f"optimization level {self.optimization_level} is none of 0 to 5")
        if self.batched and (not self.buckets or min(self.buckets) < 1):
            raise BuildFailed(f"buckets have to be batch sizes from 1 on, not {self.buckets}")


def options_from(entries: Mapping[str, str]) -> BuildOptions:
    """Read build options from a model's `engine_options`, such as "tensorrt.precision": "fp16".

    Raises:
        BuildFailed: an entry is unknown, or cannot be read.
    """
    found = {
        name.removeprefix(PREFIX): text for name, text in entries.items() if name.startswith(PREFIX)
    }
    try:
        return _options(found)
    except ValueError as error:
        raise BuildFailed(f"engine_options: {error}") from error


def blocks(entries: Mapping[str, str], default: bool = False) -> bool:
    """Return True if a model's `engine_options` have its engine sleep while the GPU runs.

    Args:
        entries: all of them.
        default: for a model that says nothing of it.

    Raises:
        BuildFailed: the entry is neither of the two there are.
    """
    text = entries.get(f"{PREFIX}{WAIT}", WAITS[default])
    if text not in WAITS:
        raise BuildFailed(
            f"engine_options: {PREFIX}{WAIT} is {' or '.join(WAITS)}, and not {text!r}"
        )
    return text == "block"


def others(entries: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that are not meant for TensorRT."""
    return {name: text for name, text in entries.items() if not name.startswith(PREFIX)}


def flags_of(options: BuildOptions) -> list[str]:
    """Return the flags with which `inferd build` builds with these options."""
    flags = ["--precision", options.precision, "--buckets", ",".join(map(str, options.buckets))]
    for name, found in options.ranges.items():
        flags += ["--range", f"{name}={range_text(found)}"]
    for target in options.targets:
        flags += ["--target", target]
    if not options.batched:
        flags.append("--no-batch")
    if options.optimization_level is not None:
        flags += ["--optimization-level", str(options.optimization_level)]
    if options.workspace_bytes is not None:
        flags += ["--workspace-mib", str(options.workspace_bytes // MIB)]
    if options.version_compatible:
        flags.append("--version-compatible")
    return [*flags, "--hardware-compatibility", options.hardware_compatibility]


def sizes(text: str) -> tuple[int, ...]:
    """Read "1,2,4"."""
    return tuple(int(part) for part in text.split(","))


def read_range(text: str) -> Range:
    """Read "3x64x64:3x224x224:3x512x512"; the batch is not a part of it.

    Raises:
        ValueError: it is not three shapes.
    """
    ends: Sequence[Shape] = [tuple(int(size) for size in end.split("x")) for end in text.split(":")]
    if len(ends) != 3:
        raise ValueError(f"{text!r} is not MIN:OPT:MAX")
    return Range(*ends)


def range_text(found: Range) -> str:
    """Write a range as `read_range` reads it."""
    ends = (found.least, found.most_often, found.most)
    return ":".join("x".join(map(str, end)) for end in ends)


def truth(name: str, text: str) -> bool:
    """Read "true" or "false".

    Raises:
        ValueError: it is neither.
    """
    if text not in ("true", "false"):
        raise ValueError(f"{PREFIX}{name} is true or false, and not {text!r}")
    return text == "true"


def _options(found: Mapping[str, str]) -> BuildOptions:
    ranges = {
        name.removeprefix(RANGE): read_range(text)
        for name, text in found.items()
        if name.startswith(RANGE)
    }
    rest = {name: text for name, text in found.items() if not name.startswith((RANGE, WAIT))}
    level, workspace = rest.pop("optimization_level", None), rest.pop("workspace_mib", None)
    options = BuildOptions(
        precision=rest.pop("precision", "fp32"),
        buckets=sizes(rest.pop("buckets", ",".join(map(str, BuildOptions().buckets)))),
        ranges=ranges,
        batched=truth("batched", rest.pop("batched", "true")),
        targets=tuple(filter(None, rest.pop("targets", "").split(","))),
        optimization_level=None if level is None else int(level),
        workspace_bytes=None if workspace is None else int(workspace) * MIB,
        version_compatible=truth("version_compatible", rest.pop("version_compatible", "false")),
        hardware_compatibility=rest.pop("hardware_compatibility", "none"),
    )
    if rest:
        raise ValueError(f"{PREFIX}{min(rest)} is unknown")
    return options
