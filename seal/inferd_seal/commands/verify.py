"""inferd models verify: whether a server would take a sealed or signed folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferd_seal.commands.each import Done, add_flags, for_each_version

HELP = "see whether a server would take a sealed or signed folder"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser)
    parser.add_argument(
        "--signer",
        type=Path,
        action="append",
        default=[],
        metavar="PEM",
        help="public key of somebody who may have signed; without any, no signature is looked at",
    )


def run(arguments: argparse.Namespace) -> int:
    """Verify every version of the folder."""
    return for_each_version("verify", arguments, lambda folder: verified(folder, arguments), line)


def verified(folder: Path, arguments: argparse.Namespace) -> Done:
    """Verify one version, and return what it is.

    Raises:
        SealError: a server would refuse it.
    """
    from inferd_seal.folder import facts, place_of
    from inferd_seal.reader import Trust, verify_folder
    from inferd_seal.signature import read_public_key

    name, version = place_of(folder)
    signers = tuple(read_public_key(path) for path in arguments.signer)
    seal = verify_folder(folder, name, version, Trust(tuple(arguments.key), signers))
    return {**(facts(seal) if seal is not None else {}), "signed": bool(signers)}


def line(done: Done) -> str:
    """Say what was found."""
    found = {
        "every part opens": done.get("encrypted", False),
        "the signature is right": done["signed"],
    }
    return f"good: {' and '.join(text for text in found if found[text]) or 'its name is right'}"
