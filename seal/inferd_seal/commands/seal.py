"""inferd models seal: a model's folder, encrypted and signed in place."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from inferd_seal.commands.each import Done, add_flags, for_each_version

HELP = "encrypt and sign a model's folder, in place"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser)
    parser.add_argument("--sign", type=Path, metavar="PEM", help="private key to sign with")


def run(arguments: argparse.Namespace) -> int:
    """Seal every version of the folder."""
    return for_each_version("seal", arguments, lambda folder: sealed(folder, arguments), line)


def sealed(folder: Path, arguments: argparse.Namespace) -> Done:
    """Seal one version, and return what was done.

    Raises:
        SealError: it cannot be sealed, or a key cannot be had.
        OSError: there is no room.
    """
    from inferd_seal.errors import Unusable
    from inferd_seal.folder import facts, model_files, seal_folder
    from inferd_seal.signature import read_private_key

    if not arguments.key and arguments.sign is None:
        raise Unusable("give --key to encrypt it, --sign to sign it, or both")
    signer = None if arguments.sign is None else read_private_key(arguments.sign)
    size = sum((folder / name).stat().st_size for name in model_files(folder))
    # Nothing is shown in a pipe.
    with tqdm(total=size, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        seal = seal_folder(folder, arguments.key, signer, bar.update)
    return {**facts(seal), "signed": signer is not None}


def line(done: Done) -> str:
    """Say what was done with a version."""
    words = {"encrypted": done["encrypted"], "signed": done["signed"]}
    return f"{len(done['files'])} files, {' and '.join(word for word in words if words[word])}"
