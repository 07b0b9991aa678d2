"""Build options as people write them, on the command line and in model.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from inferd_engines.tensorrt.errors import BuildFailed
from inferd_engines.tensorrt.options import BuildOptions
from inferd_engines.tensorrt.profiles import Range, Shape

PREFIX = "tensorrt."
"""Of the entries of `engine_options` that are meant for TensorRT."""
RANGE = "range."
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


def _options(found: Mapping[str, str]) -> BuildOptions:
    ranges = {
        name.removeprefix(RANGE): read_range(text)
        for name, text in found.items()
        if name.startswith(RANGE)
    }
    rest = {name: text for name, text in found.items() if not name.startswith(RANGE)}
    options = BuildOptions(
        precision=rest.pop("precision", "fp32"),
        buckets=sizes(rest.pop("buckets", ",".join(map(str, BuildOptions().buckets)))),
        ranges=ranges,
        batched=rest.pop("batched", "true") == "true",
        hardware_compatibility=rest.pop("hardware_compatibility", "none"),
    )
    if rest:
        raise ValueError(f"{PREFIX}{min(rest)} is unknown")
    return options
