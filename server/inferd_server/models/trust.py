"""The files of a version as the settings demand them: sealed, signed, of the right name."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING

from inferd_engines.engine import UntrustedFiles
from inferd_engines.model_files import FileReader, FileState, PlainReader, state_of

from inferd_server.errors import SettingsError
from inferd_server.settings.security import SealSettings

if TYPE_CHECKING:
    from inferd_seal.reader import Trust, VersionReader

SEAL_FILE, SIGNATURE_FILE = "seal.json", "model.sig"
"""As in inferd_seal, which is imported only where there is something for it."""
KEY_UNAVAILABLE = "SEAL_KEY_UNAVAILABLE"
"""The reason of errors about keys that cannot be had, and may be later."""
NOT_INSTALLED = "SEAL_NOT_INSTALLED"
CURE = "install inferd[seal]"


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

    def __call__(self, path: Path) -> tuple[bytes, FileState]:
        """Return the content of a file, and which state of it that was.

        Raises:
            OSError: it cannot be read.
            UntrustedFiles: it is not what was sealed or signed.
        """
        from inferd_seal.errors import SealError

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
        from inferd_seal.errors import SealError

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


def reader_of(trust: SealSettings, name: str, version: int, model: Path) -> FileReader:
    """Return what reads the files of a version; blocks where a key has to be asked for.

    Args:
        trust: what is demanded of them.
        name: of the model.
        version: that it is loaded as.
        model: its file.

    Raises:
        UntrustedFiles: they are not what was sealed or signed.
    """
    folder = Path(os.path.normpath(model.parent))
    there = [(folder / file).exists() for file in (SEAL_FILE, SIGNATURE_FILE)]
    strict = trust.require_models != "any"
    if not strict and not there[0] and not (there[1] and trust.model_signers):
        return PlainReader()
    try:
        from inferd_seal.errors import SealError
        from inferd_seal.reader import VersionReader
    except ModuleNotFoundError as error:
        text = f"it is sealed or signed, and {error.name} is missing: {CURE}"
        raise UntrustedFiles(text, NOT_INSTALLED) from error
    try:
        version_files = VersionReader(folder, name, version, trust_of(trust))
    except SealError as error:
        raise UntrustedFiles(str(error), error.reason) from error
    if version_files.sealed:
        leave_no_core()
    return TrustedFiles(version_files, folder, strict=strict)


def leave_no_core() -> None:
    """Have this process write no memory to a disk when it ends badly.

    A limit of 1 is too little for a file, and the kernel sends no pipe a core then: core(5).
    """
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    least = 1 if most == resource.RLIM_INFINITY else min(1, most)
    resource.setrlimit(resource.RLIMIT_CORE, (least, most))


def trust_of(settings: SealSettings) -> Trust:
    """Return what the settings demand; the signers' keys are read.

    Raises:
        SealError: one of them is none.
    """
    from inferd_seal.reader import Trust
    from inferd_seal.signature import read_public_key

    signers = tuple(read_public_key(path) for path in settings.model_signers)
    return Trust(settings.model_keys, signers, settings.require_models)


def check_trust(settings: SealSettings) -> None:
    """See whether what models are checked with can be used; the keys need not be there yet.

    Raises:
        SettingsError: a signer's key is none, something has to be installed, or is demanded that
            no model could meet.
    """
    demand = settings.require_models
    if demand != "any" and not settings.model_signers:
        raise SettingsError(f"require_models is {demand}, and model_signers names nobody")
    if demand == "sealed" and not settings.model_keys:
        raise SettingsError("require_models is sealed, and model_keys names no key")
    if not settings.model_keys and not settings.model_signers:
        return
    try:
        import inferd_seal.reader  # noqa: F401 what models are checked with
        from inferd_seal.errors import SealError
        from inferd_seal.key_sources import parse_source
    except ModuleNotFoundError as error:
        name = "model_keys" if settings.model_keys else "model_signers"
        raise SettingsError(f"{name}: {error.name} is missing: {CURE}") from error
    for source in settings.model_keys:
        try:
            parse_source(source)
        except SealError as error:
            raise SettingsError(f"model_keys: {error}") from error
    try:
        trust_of(settings)
    except SealError as error:
        raise SettingsError(f"model_signers: {error}") from error
