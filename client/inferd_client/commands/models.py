"""inferd models: what a server has, in which state, on which engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import entry_points

from inferd_client import tables
from inferd_client.client import Client
from inferd_client.commands import connect
from inferd_client.discovery import load
from inferd_client.errors import Unimplemented
from inferd_client.information import ModelState, ModelVersionStatus

HELP = "list the models of a server; seal, verify and rotate those of a folder"
GROUP = "inferd.models.commands"
"""Entry points of what can be done besides, each a module like that of a command."""

HEADERS = ("NAME", "VERSION", "STATE", "ENGINE", "MAX BATCH", "REASON", "BATCHING")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    connect.configure(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    inner = parser.add_subparsers(title="with a folder of models", metavar="COMMAND")
    for command in map(load, sorted(entry_points(group=GROUP), key=lambda entry: entry.name)):
        child = inner.add_parser(
            command.name, help=command.help, description=command.help, allow_abbrev=False
        )
        child.set_defaults(parser=child)
        if command.module is not None:
            command.module.configure(child)
            child.set_defaults(run=command.module.run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line for every model version."""
    with connect.client(arguments) as client:
        models = _models(client)
    if arguments.json:
        print(json.dumps([asdict(model) for model in models], indent=2))
    else:
        print(tables.render(HEADERS, [row(model) for model in models]))
    return 0


def _models(client: Client) -> Sequence[ModelVersionStatus | ModelState]:
    try:
        return client.status().models
    except Unimplemented:  # another server: its index tells less
        return client.models()


def row(model: ModelVersionStatus | ModelState) -> tuple[str, ...]:
    """Return the cells of one line."""
    if isinstance(model, ModelState):
        return (model.name, model.version, model.state, "", "", model.reason, "")
    reasons = [reason for reason in (model.reason, model.engine_reason) if reason]
    return (
        model.name,
        model.version,
        model.state,
        model.engine,
        str(model.max_batch_size),
        "; ".join(reasons),
        model.batch_reason,
    )
