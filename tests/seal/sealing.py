"""Keys, and folders that are sealed with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from inferd_seal.folder import seal_folder
from inferd_seal.reader import Trust
from inferd_seal.signature import read_private_key, read_public_key


@dataclass(frozen=True)
class Keys:
    """A key to encrypt with, and a pair to sign with."""

    key: str
    """Its source."""
    private: Path
    public: Path

    @property
    def trust(self) -> Trust:
        """All of it demanded."""
        return Trust((self.key,), (read_public_key(self.public),), "sealed")

    @property
    def settings(self) -> dict[str, object]:
        """The same as a server's settings."""
        return {
            "model_keys": self.key,
            "model_signers": self.public,
            "require_models": "sealed",
        }

    def seal(self, folder: Path) -> Path:
        """Seal and sign a folder."""
        seal_folder(folder, [self.key], read_private_key(self.private))
        return folder


def make_keys(folder: Path, name: str = "") -> Keys:
    """Make some, in files of a folder."""
    private = ec.generate_private_key(ec.SECP256R1())
    paths = [folder / f"{name}{kind}" for kind in ("key", "private.pem", "public.pem")]
    paths[0].write_bytes(AES_KEY if not name else bytes(reversed(AES_KEY)))
    paths[1].write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    paths[2].write_bytes(
        private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    return Keys(f"file:{paths[0]}", paths[1], paths[2])


AES_KEY = bytes(range(32))


def plain_folder(root: Path, name: str = "m", version: int = 1, content: bytes = b"") -> Path:
    """Make NAME/VERSION with a model of two parts and an empty file beside it."""
    folder = root / name / str(version)
    (folder / "parts").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content or f"{name} {version} ".encode() * 300)
    (folder / "parts" / "empty").write_bytes(b"")
    return folder
