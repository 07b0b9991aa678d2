"""inferd models rotate: another key for a sealed folder, whose files stay as they are."""

from __future__ import annotations

import argparse
from pathlib import Path

from inferd_seal.commands.each import KEY_HELP, Done, add_flags, for_each_version

HELP = "have another key open a sealed folder, without encrypting it again"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    add_flags(parser)
    parser.add_argument(
        "--new-key",
        action="append",
        required=True,
        metavar="KEY",
        help=f"that opens it from now on; of several, each does; {KEY_HELP}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Give every version of the folder the new key."""
    return for_each_version("rotate", arguments, lambda folder: rotated(folder, arguments), line)


def rotated(folder: Path, arguments: argparse.Namespace) -> Done:
    """Give one version the new key, and return the ids of the keys before and after.

    Raises:
        SealError: it is not sealed, or a key is wrong or cannot be had.
        OSError: the folder cannot be written.
    """
    from inferd_seal.folder import rotate

    return rotate(folder, arguments.key, arguments.new_key)


def line(done: Done) -> str:
    """Say which keys open a version now."""
    return f"opens with {' or '.join(done['after'])}"
