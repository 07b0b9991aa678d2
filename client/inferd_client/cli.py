"""The `inferd` command: finds its sub-commands, runs one, turns errors into exit codes.

Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from types import FrameType
from typing import Any, NoReturn

from inferd_client.discovery import Command, asked, find
from inferd_client.errors import InferdError

GROUP, BEFORE = "inferd.commands", "inferd.before"

HELD: Mapping[signal.Signals, Any] = {
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGINT: signal.default_int_handler,
}

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    hold_signals()
    try:
        for entry in entry_points(group=BEFORE, name=asked(arguments)):
            entry.load()()
        return run(arguments, tuple(entry_points(group=GROUP)))
    finally:
        release_signals()


def hold_signals() -> None:
    """Hold what asks to stop while modules are imported: a command may want to end well.

    As process 1 of a container nothing would come of a signal that has no handler yet.
    """
    for number in HELD:
        signal.signal(number, _kept)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def release_signals() -> None:
    """Let signals do what they do by default, unless the command has taken them over."""
    for number, default in HELD.items():
        if signal.getsignal(number) is _kept:
            signal.signal(number, default)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def _kept(number: int, _: FrameType | None) -> None:
    """Leave a signal that another thread took to the main thread, which holds it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def run(arguments: Sequence[str], entries: Sequence[EntryPoint]) -> int:
    """Run one of the commands that `entries` name and return its exit code."""
    commands = find(arguments, entries)
    if len(commands) == 1 and commands[0].module is None:
        return _fail(commands[0].name, commands[0].help)
    try:
        check_flags(parser(commands), arguments)
        parsed, unknown = parser(commands).parse_known_args(arguments)
        if unknown:
            _refuse(parsed.parser or parser(commands), unknown[0])
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
    whole.set_defaults(run=None, parser=None)
    listed = whole.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in commands:
        child = listed.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        child.set_defaults(parser=child)
        if command.module is not None:
            command.module.configure(child)
            child.set_defaults(run=command.module.run)
    return whole


def check_flags(command: argparse.ArgumentParser, arguments: Sequence[str]) -> None:
    """Refuse a flag that neither a command nor any of its operations has.

    Where operations follow, argparse would take its value for one of them and say no more.
    """
    for name, inner in operations_of(command).items():
        if operations_of(inner) and name in arguments:
            known = {flag for one in operations_of(inner).values() for flag in flags_of(one)}
            for argument in arguments[: (*arguments, "--").index("--")]:
                flag = argument.partition("=")[0]
                if flag.startswith("--") and flag not in {*known, *flags_of(inner)}:
                    _refuse(inner, argument)


def operations_of(command: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    """Return what may follow a command, by name."""
    found: dict[str, argparse.ArgumentParser] = {}
    for action in command._actions:  # noqa: SLF001 there is no other way to learn them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 likewise
            found |= action.choices
    return found


def flags_of(command: argparse.ArgumentParser) -> list[str]:
    """Return the flags of a command."""
    return [option for action in command._actions for option in action.option_strings]  # noqa: SLF001 there is no other way to learn them


def _refuse(command: argparse.ArgumentParser, unknown: str) -> NoReturn:
    """End with the usage of the command, and with the flag that was meant."""
    flag = unknown.partition("=")[0]
    alike = difflib.get_close_matches(flag, flags_of(command), 1)
    cure = f"; did you mean {alike[0]}?" if alike else ""
    command.error(f"unrecognized argument: {unknown}{cure}")


def _execute(parsed: argparse.Namespace) -> int:
    try:
        if not getattr(parsed, "holds_signals", False):
            release_signals()
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
