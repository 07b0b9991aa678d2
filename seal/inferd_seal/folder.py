"""The folder of a sealed version: what lies in it, and how it is made and read.

NAME/VERSION/model.onnx, ...   the files under their own names, each sealed (stream.py)
NAME/VERSION/seal.json         which model and version this is, and which files it has
NAME/VERSION/seal.keys         the data key, wrapped; the only file that a new key changes
NAME/VERSION/model.sig         the signature of all but seal.keys (signature.py)
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from inferd_seal.errors import Tampered, Unusable
from inferd_seal.key_sources import KEY, read_key
from inferd_seal.keys import WrappedKey, decode_wrapped, encode_wrapped, unwrap, wrap
from inferd_seal.signature import sign
from inferd_seal.stream import CHUNK, new_header, seal_stream
from inferd_seal.trusted_files import KEYS_FILE, OWN, SEAL_FILE, SIGNATURE_FILE

SETTINGS = frozenset({"model.yaml"})
"""Files that are read before a key is asked for."""
PLAIN_SUFFIXES = (".so", ".npz")
"""Of what is opened by its path: libraries of operators, and inputs to warm up with."""
FORMAT = 1
AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Source: renameat2(2)."""


@dataclass(frozen=True, slots=True)
class Seal:
    """What a folder says that it is; true once its signature or its key has vouched for it."""

    model: str
    version: int
    seal: str
    """Random, for this sealing."""
    encrypted: bool
    files: tuple[str, ...]
    plain: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of files that are left in the clear, by name."""

    @property
    def bound(self) -> bytes:
        """All of it, which the data key is bound to."""
        return json.dumps(asdict(self), sort_keys=True).encode()


def read_seal(folder: Path) -> bytes | None:
    """Read the file in which a folder says what it is; None if it says nothing.

    Raises:
        Unusable: it cannot be read.
    """
    try:
        return (folder / SEAL_FILE).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"{SEAL_FILE} cannot be read: {error.strerror}") from error


def seal_of(folder: Path) -> Seal | None:
    """Return what a folder says that it is; None if it says nothing.

    Raises:
        SealError: what it says cannot be read, or was changed.
    """
    content = read_seal(folder)
    return None if content is None else decode_seal(content)


def decode_seal(content: bytes) -> Seal:
    """Read a seal.

    Raises:
        Tampered: it is none.
        Unusable: it is one of a later format.
    """
    try:
        told = json.loads(content)
        if told.pop("format") != FORMAT:
            raise Unusable(f"{SEAL_FILE} is of a later format than this version reads")
        seal = Seal(**{**told, "files": tuple(map(str, told["files"]))})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Tampered(f"{SEAL_FILE} was changed") from error
    if not (
        isinstance(seal.model, str)
        and isinstance(seal.version, int)
        and isinstance(seal.plain, dict)
    ):
        raise Tampered(f"{SEAL_FILE} was changed")
    return seal


def encode_seal(seal: Seal) -> bytes:
    """Return a seal as its file."""
    told = {"format": FORMAT, **asdict(seal), "files": list(seal.files)}
    return json.dumps(told, indent=2).encode() + b"\n"


def facts(seal: Seal) -> Mapping[str, Any]:
    """Return what commands tell of a seal."""
    return {
        "model": seal.model,
        "version": seal.version,
        "encrypted": seal.encrypted,
        "files": list(seal.files),
    }


def place_of(folder: Path) -> tuple[str, int]:
    """Return the name and version that a folder NAME/VERSION is for.

    Raises:
        Unusable: it is no such folder.
    """
    whole = folder.absolute()
    if not (whole.is_dir() and whole.name.isascii() and whole.name.isdigit()):
        raise Unusable(f"{folder} is no folder of a version: NAME/VERSION was expected")
    return whole.parent.name, int(whole.name)


def versions_in(folder: Path) -> list[Path]:
    """Return the folders of versions that a path means: itself, or those in it.

    Raises:
        Unusable: there are none.
    """
    if folder.name.isdigit() and folder.is_dir():
        return [folder]
    inner = sorted(path for path in folder.glob("[1-9]*") if path.name.isdigit() and path.is_dir())
    if not inner:
        raise Unusable(f"{folder} has no version: a folder NAME or NAME/VERSION was expected")
    return inner


def stays_plain(name: str) -> bool:
    """True for a file that is bound to the seal and not encrypted: it is no part of the model."""
    return name in SETTINGS or name.endswith(PLAIN_SUFFIXES)


def model_files(folder: Path) -> list[str]:
    """Return the files of a version, relative to its folder, sorted.

    Raises:
        Unusable: there is none, or something that is no plain file.
    """
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Unusable(f"{path} is a link or no plain file: copy the file itself there")
        if path.is_file() and name not in OWN:
            names.append(name)
    if not names:
        raise Unusable(f"{folder} has no files")
    return names


def seal_folder(
    folder: Path,
    sources: Sequence[str],
    signer: ec.EllipticCurvePrivateKey | None,
    progress: Callable[[float], object] = lambda _: None,
) -> Seal:
    """Seal a version, sign it, or both, in place: all of it at once or nothing.

    Args:
        folder: NAME/VERSION.
        sources: where the keys are that shall open it, any one of them; none: it is only signed.
        signer: who signs; None: nobody.
        progress: told of bytes that were read.

    Raises:
        SealError: it is sealed already, a key cannot be had, or a file is none to seal.
        OSError: there is no room.
    """
    name, version = place_of(folder)
    if folder.is_symlink():
        raise Unusable(f"{folder} is a link: give the folder that it leads to")
    with alone_in(folder.parent):
        made = folder.parent / f".{folder.name}.sealing"
        # Left by one that was killed; the clear, perhaps.
        shutil.rmtree(made, ignore_errors=True)
        before = seal_of(folder)
        seal = _to_seal(folder, name, version, before, sources, signer)
        try:
            if before is None:
                _write_sealed(folder, made, seal, list(map(read_key, sources)), progress)
            else:
                shutil.copytree(folder, made)
            if signer is not None:
                write_signature(made, name, signer)
            replace(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return seal


def _to_seal(
    folder: Path,
    name: str,
    version: int,
    before: Seal | None,
    sources: Sequence[str],
    signer: ec.EllipticCurvePrivateKey | None,
) -> Seal:
    """Return the seal that a version gets, or has already and keeps.

    Raises:
        Unusable: there is nothing to do, or nothing that it could be done to.
    """
    if before is None:
        names = model_files(folder)
        plain = {file: file_digest(folder / file) for file in names if stays_plain(file)}
        files = tuple(file for file in names if file not in plain)
        return Seal(name, version, secrets.token_hex(16), bool(sources), files, plain)
    if sources:
        raise Unusable(f"{folder} is sealed already; `inferd models rotate` changes its keys")
    if signer is None:
        raise Unusable(f"{folder} is sealed already, and nobody is to sign it")
    return before


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one that seals anything in a folder.

    Raises:
        Unusable: somebody else does.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise Unusable(f"another process seals something in {folder}") from error
    finally:
        os.close(descriptor)


def _write_sealed(
    folder: Path, made: Path, seal: Seal, keys: Sequence[bytes], progress: Callable[[float], object]
) -> None:
    data_key = secrets.token_bytes(KEY)
    for file in seal.plain:
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, made / file)
    for file in seal.files:
        (made / file).parent.mkdir(parents=True, exist_ok=True)
        with (folder / file).open("rb") as source, (made / file).open("xb") as target:
            header = new_header(
                seal.model, seal.version, file, os.fstat(source.fileno()).st_size, seal.seal
            )
            if not keys:
                shutil.copyfileobj(source, target, CHUNK)
                progress(header.size)
                continue
            for piece in seal_stream(source, header, data_key):
                progress(target.write(piece))
    (made / SEAL_FILE).write_bytes(encode_seal(seal))
    if keys:
        wrapped = [wrap(data_key, key, seal.bound) for key in keys]
        (made / KEYS_FILE).write_bytes(encode_wrapped(wrapped))
    made.chmod(folder.stat().st_mode & 0o7777)


def write_signature(folder: Path, name: str, signer: ec.EllipticCurvePrivateKey) -> None:
    """Sign all files of a folder, the seal among them; a wrapped key may change later."""
    names = [*model_files(folder), *([SEAL_FILE] if (folder / SEAL_FILE).exists() else [])]
    digests = {name: file_digest(folder / name) for name in names}
    (folder / SIGNATURE_FILE).write_bytes(sign(name, digests, signer, [KEYS_FILE]))


def rotate(folder: Path, old: Sequence[str], new: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Wrap the data key of a version anew; its files and its signature stay as they are.

    Args:
        folder: NAME/VERSION.
        old: where keys are of which one opens it now.
        new: where the keys are that shall open it, any one of them.

    Returns:
        The ids of the keys, `before` and `after`.

    Raises:
        SealError: it is not sealed, or a key cannot be had or is another one.
        OSError: the folder cannot be written.
    """
    seal = seal_of(folder)
    if seal is None or not seal.encrypted:
        raise Unusable(f"{folder} is not sealed")
    before = read_wrapped(folder)
    data_key = unwrap(before, old, seal.bound)
    after = [wrap(data_key, read_key(source), seal.bound) for source in new]
    replaced = folder / f".{KEYS_FILE}.{secrets.token_hex(4)}"
    try:
        replaced.write_bytes(encode_wrapped(after))
        replaced.replace(folder / KEYS_FILE)
    finally:
        replaced.unlink(missing_ok=True)
    return {"before": [one.key for one in before], "after": [one.key for one in after]}


def read_wrapped(folder: Path) -> tuple[WrappedKey, ...]:
    """Read the wrapped keys of a version.

    Raises:
        Tampered: they are not there, or none.
    """
    try:
        content = (folder / KEYS_FILE).read_bytes()
    except OSError as error:
        raise Tampered(f"{KEYS_FILE} is gone") from error
    return decode_wrapped(content)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder: Path, *, inside: bool = True) -> None:
    """Have a folder on the disk, and all that is in it."""
    for path in [*(folder.rglob("*") if inside else ()), folder]:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def replace(made: Path, folder: Path) -> None:
    """Put a folder in the place of another, which may go at once then."""
    sync(made)
    exchange(made, folder)
    sync(folder.parent, inside=False)


def exchange(made: Path, folder: Path) -> None:
    """Put a folder in the place of another at once, and that one in its place.

    Where the file system cannot, there is a moment without either.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(made), os.fsencode(folder)
    if libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) == 0:
        return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
        raise OSError(code, os.strerror(code), str(folder))
    aside = made.with_name(f"{made.name}-before")
    folder.rename(aside)
    made.rename(folder)
    aside.rename(made)
