"""The files of a version as an engine reads them, where they may be sealed or signed."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from inferd_engines.engine import UntrustedFiles
from inferd_engines.model_files import FileReader, FileState, PlainReader, state_of

from inferd_seal.errors import SealError, Unusable

if TYPE_CHECKING:
    from inferd_seal.reader import Demand, Trust, VersionReader

SEAL_FILE, KEYS_FILE, SIGNATURE_FILE = "seal.json", "seal.keys", "model.sig"
OWN = frozenset({SEAL_FILE, KEYS_FILE, SIGNATURE_FILE})
"""Files that are no part of the model. Here, where nothing needs cryptography."""
NOT_INSTALLED = "SEAL_NOT_INSTALLED"
CURE = "install inferd[seal]"


@dataclass(frozen=True, slots=True)
class Demands:
    """What is demanded of models, as settings and flags say it; no key is read yet."""

    keys: tuple[str, ...] = ()
    """Where keys are: file:PATH, env:NAME, command:WORDS."""
    signers: tuple[Path, ...] = ()
    """PEM files of the public keys of those who may sign."""
    required: Demand = "any"

    def check(self) -> None:
        """See whether any model could meet this.

        Raises:
            Unusable: none could.
        """
        if self.required != "any" and not self.signers:
            raise Unusable(f"require_models is {self.required}, and model_signers names nobody")
        if self.required == "sealed" and not self.keys:
            raise Unusable("require_models is sealed, and model_keys names no key")

    def concern(self, folder: Path) -> bool:
        """True if the files of a version have to be checked."""
        sealed, signed = ((folder / file).exists() for file in (SEAL_FILE, SIGNATURE_FILE))
        return self.required != "any" or sealed or (signed and bool(self.signers))

    def trust(self) -> Trust:
        """Return the same with the signers' keys.

        Raises:
            SealError: one of them is none.
        """
        from inferd_seal.reader import Trust
        from inferd_seal.signature import read_public_key

        return Trust(self.keys, tuple(map(read_public_key, self.signers)), self.required)


def read_demands(keys: str, signers: str, required: str) -> Demands:
    """Read what texts demand, lists with commas between; "" demands nothing.

    Raises:
        Unusable: no model could meet it, or `required` is none of "any", "signed" and "sealed".
    """
    if required not in {"", "any", "signed", "sealed"}:
        raise Unusable(f"require_models is {required!r}; any, signed or sealed was expected")
    kind = cast("Demand", required or "any")
    demands = Demands(tuple(_each(keys)), tuple(map(Path, _each(signers))), kind)
    demands.check()
    return demands


def _each(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]


class TrustedFiles:
    """Reads the files of a version, each of which is checked meanwhile. One thread at a time."""

    def __init__(self, version: VersionReader, folder: Path, *, strict: bool) -> None:
        """Use what checks a version.

        Args:
            version: the files of its folder.
            folder: of the version.
            strict: nothing else may be read.
        """
        self._version = version
        self._folder = folder
        self._strict = strict

    @property
    def sealed(self) -> bool:
        """True if what is read must not get to a disk."""
        return self._version.sealed

    @property
    def sealed_as(self) -> int:
        """The version that it was sealed as; 0: it says of none."""
        seal = self._version.seal
        return 0 if seal is None else seal.version

    def check(self, names: Iterable[str]) -> None:
        """Read files, and forget them again.

        Args:
            names: relative to the version's folder.

        Raises:
            OSError: one cannot be read.
            UntrustedFiles: one is not what was sealed or signed, or not among that.
        """
        for name in names:
            if name not in OWN:
                self(self._folder / name)

    def __call__(self, path: Path) -> tuple[bytes, FileState]:
        """Return the content of a file, and which state of it that was.

        Raises:
            OSError: it cannot be read.
            UntrustedFiles: it is not what was sealed or signed.
        """
        # As it is named and not as links lead, which are somebody else's to judge.
        whole = Path(os.path.normpath(path))
        if not whole.is_relative_to(self._folder):
            return self._outside(whole)
        with whole.open("rb") as file:
            state = state_of(os.fstat(file.fileno()))
            try:
                return self._version.read(whole.relative_to(self._folder).as_posix(), file), state
            except SealError as error:
                raise UntrustedFiles(str(error), error.reason) from error

    def protect(self, name: str, data: bytes) -> bytes:
        """Return what may be kept on a disk of something that was made of the files."""
        return self._version.protect(name, data) if self.sealed else data

    def reveal(self, name: str, data: bytes) -> bytes:
        """Return what was protected under that name.

        Raises:
            UntrustedFiles: it is something else.
        """
        if not self.sealed:
            return data
        try:
            return self._version.reveal(name, data)
        except SealError as error:
            raise UntrustedFiles(str(error), error.reason) from error

    def _outside(self, path: Path) -> tuple[bytes, FileState]:
        """Read a file that belongs to all versions of a model, such as a library of operators."""
        if self._strict:
            text = f"{path.name} is in no folder of a version, where files are sealed and signed"
            raise UntrustedFiles(text, "SEAL_NOT_SIGNED")
        return PlainReader()(path)


def reader_of(demands: Demands, name: str, version: int | None, model: Path) -> FileReader:
    """Return what reads the files of a version; blocks where a key has to be asked for.

    Args:
        demands: what is demanded of them.
        name: of the model.
        version: that it is loaded as; None: whichever it was sealed as.
        model: its file.

    Raises:
        UntrustedFiles: they are not what was sealed or signed.
    """
    folder = Path(os.path.normpath(model.parent))
    if not demands.concern(folder):
        return PlainReader()
    try:
        from inferd_seal.reader import VersionReader
    except ModuleNotFoundError as error:
        text = f"it is sealed or signed, and {error.name} is missing: {CURE}"
        raise UntrustedFiles(text, NOT_INSTALLED) from error
    try:
        version_files = VersionReader(folder, name, version, demands.trust())
    except SealError as error:
        raise UntrustedFiles(str(error), error.reason) from error
    if version_files.sealed:
        leave_no_core()
    return TrustedFiles(version_files, folder, strict=demands.required != "any")


def leave_no_core() -> None:
    """Have this process write no memory to a disk when it ends badly.

    A limit of 1 is too little for a file, and the kernel sends no pipe a core then: core(5).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))
