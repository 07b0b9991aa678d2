"""One of these commands, done for every version that its argument means."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

KEY_HELP = "where the key is: PATH of a file, env:NAME, or command:WORDS, whose output it is"
Done = Mapping[str, Any]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add what all of them have: the folder, keys, and --json."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="NAME/VERSION, or NAME for all")
    parser.add_argument("--key", action="append", default=[], metavar="KEY", help=KEY_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")


def for_each_version(
    command: str,
    arguments: argparse.Namespace,
    do: Callable[[Path], Done],
    line: Callable[[Done], str],
) -> int:
    """Do something with every version, print what was done, and return the exit code.

    Args:
        command: its name.
        arguments: with `folder` and `json`.
        do: does it, and returns what is told in JSON.
        line: says that in words.
    """
    try:
        # Here, so that other commands start without cryptography.
        from inferd_seal.errors import SealError
        from inferd_seal.folder import versions_in
    except ModuleNotFoundError as error:
        text = f"needs {error.name}: run pip install 'inferd[seal]' first"
        print(f"inferd models {command}: {text}", file=sys.stderr)
        return 1
    done: list[Done] = []
    problem = ""
    try:
        for folder in versions_in(arguments.folder):
            problem = f"{folder}: "
            done.append({"folder": str(folder), **do(folder)})
        problem = ""
    except (SealError, OSError) as error:
        problem += str(error)
    if arguments.json:
        print(json.dumps(done, indent=2))
    else:
        print("".join(f"{one['folder']}: {line(one)}\n" for one in done), end="")
    if problem:
        print(f"inferd models {command}: {problem}", file=sys.stderr)
    return 1 if problem else 0
