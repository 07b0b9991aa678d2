"""inferd models: what a server has, in which state, on which engine; and what a store has."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import entry_points

from inferd_client import tables
from inferd_client.client import Client
from inferd_client.commands import connect, releases
from inferd_client.errors import Unimplemented
from inferd_client.information import ModelState, ModelVersionStatus

HELP = "list the models of a server; manage the releases of a store; seal and verify folders"
GROUP = "inferd.models"
"""Entry points: modules whose `configure` adds operations."""

HEADERS = ("NAME", "VERSION", "STATE", "ENGINE", "MAX BATCH", "REASON", "BATCHING")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags, and the operations on a store."""
    _configure_list(parser)
    parsers = parser.add_subparsers(title="operations", metavar="OPERATION", dest="operation")
    listed = parsers.add_parser(
        "list", help="list the models of a server, or of a store", allow_abbrev=False
    )
    listed.set_defaults(parser=listed, run=run)
    _configure_list(listed)
    listed.set_defaults(store=os.environ.get(releases.STORE, ""))
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        entry.load().configure(parsers)


def _configure_list(parser: argparse.ArgumentParser) -> None:
    connect.configure(parser)
    releases.configure_store(parser.add_argument)


def run(arguments: argparse.Namespace) -> int:
    """Print one line for every model version of a server, or every model of a store."""
    if arguments.store:
        arguments.url = ""
        return releases.guarded(releases.run_list)(arguments)
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
