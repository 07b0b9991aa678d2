"""Input tensors as written on a command line: NAME=VALUE.

VALUE is a JSON literal, @file.npy, @file.npz:key, @file.json, random or zeros. It is cast
to the datatype of the model's metadata, and refused where that would change an integer.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from inferd.tensors import BYTES, DATATYPES, Array

from inferd_client.conversion import converted
from inferd_client.errors import InvalidInput
from inferd_client.information import ModelMetadata, TensorInfo

GENERATED = ("random", "zeros")
# What json and numpy raise for files that are not what their names say; OSErrors tell the file.
DAMAGED = (
    ValueError,  # JSONDecodeError and UnicodeDecodeError are ones, too
    TypeError,
    EOFError,
    KeyError,
    SyntaxError,
    MemoryError,
    OverflowError,
    RecursionError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)

_NPZ = re.compile(r"(.+\.npz):(.+)")

Shapes = Mapping[str, tuple[int, ...]]


def assignment(text: str) -> tuple[str, str]:
    """Split NAME=VALUE at the first equals sign; an argparse type."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def shape_assignment(text: str) -> tuple[str, tuple[int, ...]]:
    """Read NAME=1,3,224,224; an argparse type."""
    name, value = assignment(text)
    sizes = [size.strip() for size in value.split(",")]
    if not all(size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(f"expected NAME=1,2,3, got {text!r}")
    return name, tuple(map(int, sizes))


def arrays(
    metadata: ModelMetadata, values: Sequence[tuple[str, str]], shapes: Shapes, rows: int = 1
) -> dict[str, Array]:
    """Make the arrays of a request.

    Args:
        metadata: datatypes and shapes of the model's inputs.
        values: name and VALUE of each input.
        shapes: of generated inputs; elsewhere free dimensions are 1.
        rows: size of a generated input's first dimension where that is free.

    Raises:
        InvalidInput: the model has no such input, or the value does not fit it.
        OSError: a file cannot be read.
    """
    known = {info.name: info for info in metadata.inputs}
    unknown = sorted(({name for name, _ in values} | shapes.keys()) - known.keys())
    if unknown:
        raise InvalidInput(f"{metadata.name} has no input {unknown[0]!r}, only {', '.join(known)}")
    return {
        name: _array(known[name], value, shapes.get(name) or default_shape(known[name], rows))
        for name, value in values
    }


def guess(metadata: ModelMetadata, values: Sequence[tuple[str, str]], shapes: Shapes) -> str:
    """Say which sizes of generated inputs were taken as 1, for who wonders at a refusal."""
    generated = [name for name, value in values if value in GENERATED and name not in shapes]
    guessed = [
        info.name for info in metadata.inputs if info.name in generated and None in info.shape[1:]
    ]
    if not guessed:
        return ""
    flags = " ".join(f"--shape {name}=..." for name in guessed)
    return f"free dimensions of {', '.join(guessed)} were taken as 1; give others by {flags}"


def default_shape(info: TensorInfo, rows: int) -> tuple[int, ...]:
    """Return the shape with `rows` for a free first dimension and 1 for the others."""
    free = (rows, *[1] * len(info.shape))
    return tuple(size or free[axis] for axis, size in enumerate(info.shape))


def _array(info: TensorInfo, value: str, shape: tuple[int, ...]) -> Array:
    if info.datatype not in DATATYPES:
        raise InvalidInput(f"input {info.name!r} has the unknown datatype {info.datatype!r}")
    if value in GENERATED:
        return _generated(info, value, shape)
    try:
        return converted(_read(value), info)
    except DAMAGED as error:
        said = str(error) or type(error).__name__
        raise InvalidInput(f"input {info.name!r}: {value[:80]}: {said}") from error


def _generated(info: TensorInfo, value: str, shape: tuple[int, ...]) -> Array:
    try:
        return _filled(info, shape) if value == "zeros" else _random(info, shape)
    except (ValueError, MemoryError) as error:
        raise InvalidInput(
            f"input {info.name!r}: no array of shape {list(shape)} can be made: {error}"
        ) from error


def _filled(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    return np.full(shape, b"" if info.datatype == BYTES else 0, info.dtype)


def _random(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    generator = np.random.default_rng(0)
    if info.datatype == BYTES:
        letters = [generator.bytes(4).hex().encode() for _ in range(math.prod(shape))]
        return np.array(letters, np.object_).reshape(shape)
    if info.dtype.kind in "iub":
        # 0 and 1 are valid wherever integers are indices.
        return generator.integers(0, 2, shape).astype(info.dtype)
    return generator.random(shape).astype(info.dtype)


def _read(value: str) -> object:
    if not value.startswith("@"):
        return json.loads(value)
    name = value[1:]
    member = _NPZ.fullmatch(name)
    if member:
        # numpy leaves a damaged file open that it opened itself.
        with Path(member[1]).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if member[2] not in archive:
                raise ValueError(f"{member[1]} holds no {member[2]!r}, only {archive.files}")
            return archive[member[2]]
    if name.endswith(".npy"):
        with Path(name).open("rb") as file:
            return np.load(file, allow_pickle=False)
    if name.endswith(".json"):
        return json.loads(Path(name).read_text(encoding="utf-8"))
    raise ValueError(f"{name!r} is not .npy, .npz:key or .json")
