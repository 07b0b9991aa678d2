"""Reads the files of a version as a server demands them: unsealed, signed, of the right name."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from cryptography.hazmat.primitives.asymmetric import ec

from inferd_seal.errors import (
    NotSealed,
    NotSigned,
    Renamed,
    Replayed,
    Tampered,
    Unusable,
)
from inferd_seal.folder import (
    SETTINGS,
    Seal,
    decode_seal,
    file_digest,
    read_seal,
    read_wrapped,
)
from inferd_seal.keys import unwrap
from inferd_seal.signature import read_signature, signed_digests
from inferd_seal.stream import (
    CHUNK,
    MAGIC,
    Header,
    is_sealed,
    new_header,
    read_header,
    seal_stream,
    unseal,
)
from inferd_seal.trusted_files import SEAL_FILE, SIGNATURE_FILE

NO_SEAL = f"it has no {SEAL_FILE}, without which no model is taken here: inferd models seal"
MADE = ".made"
"""Folder, as a header names it, of what is made of a model; none of the model's own files."""
Demand = Literal["any", "signed", "sealed"]


@dataclass(frozen=True, slots=True)
class Trust:
    """What is demanded of a model before its files are used."""

    keys: tuple[str, ...] = ()
    """Where keys are: file:PATH, env:NAME, command:WORDS."""
    signers: tuple[ec.EllipticCurvePublicKey, ...] = ()
    """Who may sign; none: signatures are not looked at."""
    demand: Demand = "any"


class VersionReader:
    """The files of one version, each of which is checked as it is read. One thread at a time."""

    def __init__(self, folder: Path, name: str, version: int | None, trust: Trust) -> None:
        """Read what the folder says of itself, and see whether it is what it should be.

        Args:
            folder: of the version.
            name: that the model is served by.
            version: that it is served as; None: whichever it was sealed as.
            trust: what is demanded of it.

        Raises:
            SealError: it is not what is demanded, or not this version.
        """
        self._folder = folder
        if trust.demand == "sealed" and read_seal(folder) is None:
            raise NotSealed(NO_SEAL)
        self._signed = signed_files(folder, trust)
        self.seal = self._checked_seal(name, version, trust)
        self.key = b""
        if self.seal is not None and self.seal.encrypted:
            self.key = unwrap(read_wrapped(folder), trust.keys, self.seal.bound)
        self._check_plain()

    @property
    def sealed(self) -> bool:
        """True if the content of the files must not get to a disk."""
        return bool(self.key)

    @property
    def files(self) -> tuple[str, ...]:
        """The files that were sealed or signed, as far as that is told."""
        if self.seal is not None:
            return self.seal.files
        return tuple(self._signed or ())

    def read(self, name: str, file: BinaryIO) -> bytes:
        """Return the content of a file, once it is known to be what was sealed and signed.

        Args:
            name: relative to the version's folder.
            file: open, at its begin.

        Raises:
            SealError: it is not.
        """
        source = HashedFile(file)
        content = self._content(name, source)
        if self._signed is not None:
            self._check_signed(name, source.digest())
        return content

    def protect(self, name: str, data: bytes) -> bytes:
        """Seal something that was made of the files, such as a plan; of a sealed version only.

        Args:
            name: by which it is kept.
            data: it.
        """
        assert self.seal is not None
        seal = self.seal
        header = new_header(seal.model, seal.version, f"{MADE}/{name}", len(data), seal.seal)
        return b"".join(seal_stream(io.BytesIO(data), header, self.key))

    def reveal(self, name: str, data: bytes) -> bytes:
        """Return what was protected under a name.

        Raises:
            SealError: it is something else, or was changed.
        """
        assert self.seal is not None
        source = io.BytesIO(data)
        header = read_header(source, name)
        check_header(header, self.seal, f"{MADE}/{name}")
        return unseal(source, header, self.key)

    def _content(self, name: str, source: HashedFile) -> bytes:
        begin = source.begin(len(MAGIC))
        if self.seal is None or not self.seal.encrypted:
            if is_sealed(begin):
                raise Tampered(f"{name} is sealed, and {SEAL_FILE} does not say so")
            return source.read()
        if name in self.seal.plain:
            content = source.read()
            self._check_digest(name, source.digest(), self.seal.plain[name])
            return content
        if name not in self.seal.files:
            raise NotSealed(f"{name} is not among the files that were sealed")
        if not is_sealed(begin):
            raise NotSealed(f"{name} is not sealed, and the others of this version are")
        header = read_header(source, name)
        check_header(header, self.seal, name)
        return unseal(source, header, self.key)

    def _check_plain(self) -> None:
        """Refuse what is in the clear, and not as it was when the rest was sealed."""
        plain = self.seal.plain if self.seal is not None else {}
        for name in SETTINGS.union(plain) if self.seal is not None else ():
            there = (self._folder / name).exists()
            if there != (name in plain):
                raise Tampered(f"{name} is {'new' if there else 'gone'} since it was sealed")
            if there:
                self._check_digest(name, file_digest(self._folder / name), plain[name])

    def _check_digest(self, name: str, digest: str, expected: str) -> None:
        if digest != expected:
            raise Tampered(f"{name} is not the file that was sealed")

    def _check_signed(self, name: str, digest: str) -> None:
        assert self._signed is not None
        if name not in self._signed:
            raise NotSigned(f"{name} is not among the files that were signed")
        if self._signed[name] != digest:
            raise Tampered(f"{name} is not the file that was signed")

    def _checked_seal(self, name: str, version: int | None, trust: Trust) -> Seal | None:
        content = read_seal(self._folder)
        if content is None:
            if trust.demand != "any":
                raise NotSealed(NO_SEAL)
            return None
        if self._signed is not None:
            self._check_signed(SEAL_FILE, hashlib.sha256(content).hexdigest())
        seal = decode_seal(content)
        check_place(seal, name, seal.version if version is None else version)
        if trust.demand == "sealed" and not seal.encrypted:
            raise NotSealed("it is signed and not sealed, and models must be sealed")
        return seal


class HashedFile:
    """A file whose bytes are counted into a digest as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        """Use a file that is at its begin."""
        self._file = file
        self._digest = hashlib.sha256()

    def begin(self, count: int) -> bytes:
        """Return the first bytes, and be at the begin again."""
        begin = self._file.read(count)
        self._file.seek(0)
        return begin

    def read(self, count: int = -1, /) -> bytes:
        """Return so many bytes or fewer; with -1 all that are left."""
        data = self._file.read(count)
        self._digest.update(data)
        return data

    def digest(self) -> str:
        """Return the SHA-256 of the whole file, the part that nobody read included."""
        while self.read(CHUNK):
            pass
        return self._digest.hexdigest()


def signed_files(folder: Path, trust: Trust) -> Mapping[str, str] | None:
    """Return the digests of the files that were signed; None where nobody asks.

    Raises:
        NotSigned: there is no signature, and one is demanded.
        SealError: the signature is wrong.
    """
    if not trust.signers:
        return None
    if trust.demand == "any" and not (folder / SIGNATURE_FILE).exists():
        return None
    return signed_digests(read_signature(folder), trust.signers)


def check_place(seal: Seal, name: str, version: int) -> None:
    """Refuse the files of another model or version.

    Raises:
        Renamed: they are of another model, or of a version that is not older.
        Replayed: they are of an older version.
    """
    if seal.model != name:
        raise Renamed(f"it was sealed as model {seal.model!r}, and lies here as {name!r}")
    if seal.version < version:
        raise Replayed(f"it was sealed as version {seal.version}, which is older than {version}")
    if seal.version != version:
        raise Renamed(f"it was sealed as version {seal.version}, and lies here as {version}")


def check_header(header: Header, seal: Seal, name: str) -> None:
    """Refuse a sealed file that belongs somewhere else.

    Raises:
        Renamed: it is another file, or one of another model.
        Replayed: it is of an older version, or of another sealing of this one.
    """
    if header.model != seal.model:
        raise Renamed(f"{name} was sealed for model {header.model!r}")
    if header.version < seal.version:
        raise Replayed(f"{name} was sealed for version {header.version}, an older one")
    if header.file != name or header.version != seal.version:
        raise Renamed(f"{name} was sealed as {header.file} of version {header.version}")
    if header.seal != seal.seal:
        raise Replayed(f"{name} is of another sealing of this version")


def verify_folder(folder: Path, name: str, version: int, trust: Trust) -> Seal | None:
    """Read every file of a version as a server would, and forget it again.

    Raises:
        SealError: a server would refuse it.
    """
    if trust.signers:
        read_signature(folder)
    reader = VersionReader(folder, name, version, trust)
    if not reader.files:
        raise Unusable(f"{folder} is neither sealed nor signed by somebody who is trusted")
    for file in reader.files:
        try:
            with (folder / file).open("rb") as source:
                reader.read(file, source)
        except OSError as error:
            raise Tampered(f"{file} cannot be read: {error.strerror}") from error
    return reader.seal
