"""What a plan is a plan of: everything that another result would follow from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from inferd_engines.tensorrt.options import BuildOptions

WRAPPED = "seal.keys"
"""What opens a sealed model; another key opens the same one."""
RECIPE = 2
"""Of the builder, higher by one whenever it builds the same options in another way."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, as far as plans depend on it."""

    name: str
    capability: str
    """Such as "9.0"."""
    processors: int
    """Streaming multiprocessors."""


@dataclass(frozen=True, slots=True)
class Host:
    """Where plans are built and run, as far as they depend on it."""

    flavour: str
    version: str
    """Full version of TensorRT."""
    cuda: str
    """Version of the driver's CUDA, "" without one."""
    gpu: Gpu | None = None
    """None for a build without a GPU, whose targets are among the options."""


@dataclass(frozen=True, slots=True)
class PlanKey:
    """The address of a plan in the store, and what it was made of."""

    digest: str
    """SHA-256 as 64 hexadecimal digits."""
    parts: Mapping[str, Any]
    """As the manifest has them."""


def compatible(host: Host, options: BuildOptions) -> Host:
    """Return what a plan is keyed by: less than the host where it runs on others, too."""
    if options.version_compatible:
        # Later versions read it; an earlier one says that it does not.
        host = replace(host, version=host.version.partition(".")[0])
    if host.gpu is not None and options.hardware_compatibility == "same_compute_capability":
        host = replace(host, gpu=Gpu("", host.gpu.capability, 0))
    if options.hardware_compatibility == "ampere_plus":
        host = replace(host, gpu=None)
    return host


def key_of(model: Path, host: Host, options: BuildOptions) -> PlanKey:
    """Return the key of a model's plan on a host.

    Args:
        model: ONNX file; every file beside it counts, because weights may be there.
        host: that the plan is for.
        options: all of them.
    """
    parts: dict[str, Any] = {
        "recipe": RECIPE,
        "model": digest_of(model),
        "host": asdict(host),
        "options": plain(asdict(options)),
    }
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return PlanKey(hashlib.sha256(text.encode()).hexdigest(), parts)


def digest_of(model: Path) -> str:
    """Return the SHA-256 of a model file and all files beside it, names included, as they lie."""
    whole = hashlib.sha256()
    files = [path for path in model.parent.iterdir() if path.is_file() and path.name != WRAPPED]
    for path in sorted(files):
        # The model by its role and the rest by their names, which the model refers to.
        name = b"" if path == model else path.name.encode()
        whole.update(len(name).to_bytes(4, "little") + name + file_digest(path))
    return whole.hexdigest()


def file_digest(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def plain(value: Any) -> Any:
    """Return a value as JSON has it: tuples as lists."""
    if isinstance(value, Mapping):
        return {str(name): plain(found) for name, found in value.items()}
    if isinstance(value, tuple | list):
        return [plain(found) for found in value]
    return value


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any], at: str = "") -> list[str]:
    """Say in which parts two keys differ, such as "host.version is 10.9 and not 11.1"."""
    texts = []
    for name in sorted({*wanted, *found}):
        one, other = wanted.get(name), found.get(name)
        where = f"{at}{name}"
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            texts += differences(one, other, f"{where}.")
        elif one != other:
            texts.append(f"{where} is {other} and not {one}")
    return texts
