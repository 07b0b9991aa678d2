"""inferd drift: how the requests of models differ from their references."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inferd_client import tables
from inferd_client.commands import connect
from inferd_client.commands.drift_picture import picture

HELP = "show how requests differ from the reference of their model"
HEADERS = ("MODEL", "VERSION", "FEATURE", "KS", "PSI", "P", "DRIFT")
DRIFTED = 3
"""Exit code with --check where a model drifted."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    connect.configure(parser)
    add = parser.add_argument
    add("model", nargs="?", default="", metavar="MODEL", help="default: all that are watched")
    add("--model-version", default="", metavar="N", help="default: all versions")
    add("--json", action="store_true", help="print JSON, the distributions among it")
    add("--picture", type=Path, metavar="FILE.svg", help="draw the distributions")
    add("--check", action="store_true", help=f"exit with {DRIFTED} where a model drifted")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each feature, or say that no window was judged yet."""
    with connect.client(arguments) as client:
        found = client.drift(arguments.model, version=arguments.model_version)
    if not found:
        of = f"model {arguments.model!r}" if arguments.model else "any model"
        print(
            f"inferd drift: no request of {of} was compared with a reference yet", file=sys.stderr
        )
        return 1
    if arguments.picture is not None:
        arguments.picture.write_text(picture(found), encoding="utf-8")
    print(json.dumps(found, indent=2) if arguments.json else text(found))
    drifted = any(one["window"] and one["window"]["alarm"] for one in found)
    return DRIFTED if arguments.check and drifted else 0


def text(found: Sequence[Any]) -> str:
    """Return what people read: a sentence for each version, and a table of the features."""
    rows = [row(one, feature) for one in found for feature in one["features"]]
    told = "\n".join(sentence(one) for one in found)
    return f"{told}\n{tables.render(HEADERS, rows)}" if rows else told


def sentence(one: Any) -> str:
    """Say what is known of one version."""
    reference, window = one["reference"], one["window"]
    about = (
        f"{one['model']} version {one['version']}, compared with {reference['source']} "
        f"({reference['rows']} rows): "
    )
    if window is None:
        return f"{about}no window was judged yet, {one['open_rows']} rows are in the first"
    ended = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(window["ended"]))
    state = "drift" if window["alarm"] else "no drift"
    return (
        f"{about}{state} in the last window ({window['rows']} rows, until {ended} UTC); "
        f"{one['alarms']} of {one['windows']} windows had an alarm"
    )


def row(one: Any, feature: Any) -> tuple[str, ...]:
    """Return the cells of one line."""
    ks = "" if feature["labels"] else f"{feature['ks']:.3f}"
    return (
        one["model"],
        one["version"],
        feature["feature"],
        ks,
        f"{feature['psi']:.3f}",
        f"{feature['p']:.2g}",
        "yes" if feature["alarm"] else "",
    )
