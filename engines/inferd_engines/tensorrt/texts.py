"""Build options as people write them, on the command line and in model.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.options import WAITS, BuildOptions
from inferd_engines.tensorrt.profiles import Range, Shape

PREFIX = "tensorrt."
"""Of the entries of `engine_options` that are meant for TensorRT."""
RANGE = "range."
WAIT = "wait"
"""An option of runs, not of builds."""
CURRENT = "current"
"""As a target: the GPU of the host that builds."""
MIB = 1 << 20


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


def blocks(entries: Mapping[str, str]) -> bool:
    """Return True if a model's `engine_options` have its engine sleep while the GPU runs.

    Raises:
        BuildFailed: the entry is neither of the two there are.
    """
    text = entries.get(f"{PREFIX}{WAIT}", WAITS[0])
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
