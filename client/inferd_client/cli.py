"""The `inferd` command: finds its sub-commands, runs one, turns errors into exit codes.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version

from inferd_client.discovery import Command, find
from inferd_client.errors import InferdError

GROUP = "inferd.commands"

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(arguments, tuple(entry_points(group=GROUP)))


def run(arguments: Sequence[str], entries: Sequence[EntryPoint]) -> int:
    """Run one of the commands that `entries` name and return its exit code."""
    commands = find(arguments, entries)
    if len(commands) == 1 and commands[0].module is None:
        return _fail(commands[0].name, commands[0].help)
    try:
        parsed = parser(commands).parse_args(arguments)
    except SystemExit as end:  # argparse has printed help, version or the usage already
        return end.code if isinstance(end.code, int) else USAGE
    if parsed.run is None:
        parser(commands).print_help()
        return USAGE
    return _execute(parsed)


def parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    whole = argparse.ArgumentParser(
        prog="inferd", description="Serve models over gRPC, and call servers that do."
    )
    whole.add_argument("--version", action="version", version=f"inferd {version('inferd')}")
    whole.set_defaults(run=None)
    listed = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in commands:
        child = listed.add_parser(command.name, help=command.help, description=command.help)
        if command.module is not None:
            command.module.configure(child)
            child.set_defaults(run=command.module.run)
    return whole


def _execute(parsed: argparse.Namespace) -> int:
    try:
        code: int = parsed.run(parsed)
    except KeyboardInterrupt:
        return INTERRUPTED
    except InferdError as error:
        return _fail(parsed.command, f"{type(error).__name__}: {error.message}")
    except OSError as error:
        return _fail(parsed.command, str(error))
    return code


def _fail(command: str, message: str) -> int:
    print(f"inferd {command}: {' '.join(message.split())}", file=sys.stderr)
    return FAILED
