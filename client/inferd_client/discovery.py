"""Finds the sub-commands of `inferd`, also those whose extra is not installed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Protocol, cast


class CommandModule(Protocol):
    """What the module of a command offers."""

    HELP: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's flags."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


@dataclass(frozen=True, slots=True)
class Command:
    """One sub-command; without a module, `help` says what to install."""

    name: str
    help: str
    module: CommandModule | None


def find(arguments: Sequence[str], entries: Sequence[EntryPoint]) -> tuple[Command, ...]:
    """Import the command that the arguments name, or all of them when they name none.

    Importing only what is used keeps the client's commands quick to start.
    """
    name = asked(arguments)
    named = [entry for entry in entries if entry.name == name]
    return tuple(load(entry) for entry in sorted(named or entries, key=lambda entry: entry.name))


def asked(arguments: Sequence[str]) -> str:
    """Return the name of the command that the arguments name; "": none."""
    return next((each for each in arguments if not each.startswith("-")), "")


def load(entry: EntryPoint) -> Command:
    """Import one command; a module that is missing makes it a Command without one."""
    try:
        module = cast(CommandModule, entry.load())
    except ModuleNotFoundError as error:
        # Packages are named after their extra: inferd_server comes with inferd[server].
        extra = entry.module.partition(".")[0].removeprefix("inferd_")
        return Command(
            entry.name, f"needs {error.name}: run pip install 'inferd[{extra}]' first", None
        )
    return Command(entry.name, module.HELP, module)
