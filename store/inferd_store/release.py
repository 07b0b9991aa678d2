"""A release: what one version of a model consists of, and what is known of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from inferd_seal.trusted_files import KEYS_FILE, SIGNATURE_FILE

from inferd_store.errors import Damaged

FORMAT = 1
CONFIG_FILE = "model.yaml"
GOLDEN_FILE = "golden.npz"
"""Inputs, and the outputs that a release gave for them when it was added."""
REFERENCE_FILE = "reference.npz"
"""Inputs, and outputs perhaps, that requests are compared with: docs/drift.md."""
Json: TypeAlias = Any
Bounds: TypeAlias = Mapping[str, tuple[float | None, float | None]]
"""The least and the most that metrics may be, by name."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a release, which lies in the store under its digest."""

    path: str
    """In the folder of the version, such as "model.onnx"."""
    digest: str
    """SHA-256 of its content, in hexadecimal digits."""
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """An input or output: None stands for a free dimension."""

    name: str
    datatype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Contents:
    """What the model file of a release says of itself."""

    inputs: tuple[StoredTensor, ...]
    outputs: tuple[StoredTensor, ...]
    opset: int = 0
    """Of ONNX; 0: not told."""
    operators: Mapping[str, int] = field(default_factory=dict)
    """How many nodes have each."""


@dataclass(frozen=True, slots=True)
class About:
    """What people say of a release when they add it."""

    author: str = ""
    commit: str = ""
    """Of the source that it was made from."""
    notes: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    bounds: Bounds = field(default_factory=dict)
    """That its metrics must keep wherever it is promoted."""
    parents: tuple[int, ...] = ()
    """Versions that it was made from."""
    tags: tuple[str, ...] = ()
    tolerance: float = 1e-4
    """How far answers may be from the golden ones, relative and absolute."""


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a model; it never changes."""

    files: tuple[StoredFile, ...]
    contents: Contents
    about: About
    time: str
    """When it was added: ISO 8601, UTC."""
    sealed_as: int = 0
    """The one version that it may become; 0: any."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def golden(self) -> bool:
        """True if it has golden inputs and outputs."""
        return any(file.path == GOLDEN_FILE for file in self.files)

    @property
    def sealed(self) -> bool:
        """True if its files are encrypted."""
        return any(file.path == KEYS_FILE for file in self.files)

    @property
    def signed(self) -> bool:
        """True if somebody has signed it."""
        return any(file.path == SIGNATURE_FILE for file in self.files)

    def described(self) -> Json:
        """Return it as JSON has it."""
        return {"format": FORMAT, **asdict(self)}

    def packed(self) -> bytes:
        """Return the bytes of its manifest, the same ones for equal releases."""
        return packed(self.described())


def packed(document: Json) -> bytes:
    """Return the bytes of a small object."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def unpacked(data: bytes, what: str) -> Json:
    """Read a small object.

    Args:
        data: its bytes.
        what: it is, for whoever reads the error.

    Raises:
        Damaged: it is none, or one of a later format.
    """
    try:
        document = json.loads(data)
        known = document["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{what} is damaged: {error}") from error
    if known != FORMAT:
        raise Damaged(f"{what} has format {known!r}, which a later inferd wrote; install that one")
    return document


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def read_release(data: bytes, digest: str) -> Release:
    """Read a manifest.

    Raises:
        Damaged: it is none, or not the one of that digest.
    """
    if digest_of(data) != digest:
        raise Damaged(f"the manifest {digest} is not what its digest says")
    document = unpacked(data, f"the manifest {digest}")
    try:
        return Release(
            tuple(_file(one) for one in document["files"]),
            _contents(document["contents"]),
            _about(document["about"]),
            str(document["time"]),
            int(document.get("sealed_as", 0)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the manifest {digest} is damaged: {error!r}") from error


def _file(one: Json) -> StoredFile:
    file = StoredFile(str(one["path"]), str(one["digest"]), int(one["size"]))
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"a file is said to be at {file.path}")
    check_digest(file.digest)
    return file


def check_digest(text: str) -> str:
    """Return a SHA-256 in hexadecimal digits.

    Raises:
        ValueError: it is none.
    """
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError(f"{text} is no digest")
    return text


def _contents(one: Json) -> Contents:
    inputs, outputs = (tuple(map(_tensor, one[part])) for part in ("inputs", "outputs"))
    return Contents(inputs, outputs, int(one["opset"]), dict(one["operators"]))


def _tensor(one: Json) -> StoredTensor:
    return StoredTensor(one["name"], one["datatype"], tuple(one["shape"]))


def _about(one: Json) -> About:
    bounds = {name: (least, most) for name, (least, most) in one["bounds"].items()}
    plain = {name: one[name] for name in ("author", "commit", "notes", "metrics", "tolerance")}
    return About(**plain, bounds=bounds, parents=tuple(one["parents"]), tags=tuple(one["tags"]))


def difference(before: Release, after: Release) -> dict[str, Json]:
    """Return in what two releases differ, by what people compare: [before, after]."""
    pairs = {
        "inputs": (_shown(before.contents.inputs), _shown(after.contents.inputs)),
        "outputs": (_shown(before.contents.outputs), _shown(after.contents.outputs)),
        "sealed": (before.sealed, after.sealed),
        "signed": (before.signed, after.signed),
        "size": (before.size, after.size),
        "opset": (before.contents.opset, after.contents.opset),
        **_each("metrics", before.about.metrics, after.about.metrics),
        **_each("operators", before.contents.operators, after.contents.operators),
        **_each("files", _digests(before), _digests(after)),
    }
    return {name: list(pair) for name, pair in pairs.items() if pair[0] != pair[1]}


def _each(
    what: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    names = sorted({*before, *after})
    return {f"{what}.{name}": (before.get(name), after.get(name)) for name in names}


def _digests(release: Release) -> dict[str, str]:
    return {file.path: file.digest[:12] for file in release.files}


def _shown(tensors: tuple[StoredTensor, ...]) -> list[str]:
    return [tensor_text(tensor) for tensor in tensors]


def tensor_text(tensor: StoredTensor) -> str:
    """Return a tensor as people read it, such as "image FP32 [?, 3, 224, 224]"."""
    shape = ", ".join("?" if size is None else str(size) for size in tensor.shape)
    return f"{tensor.name} {tensor.datatype} [{shape}]"
