"""inferd feedback: tell a server what was true of its predictions."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from inferd_client import tables
from inferd_client.commands import connect
from inferd_client.errors import InvalidInput
from inferd_client.feedback import Label, Labels

HELP = "tell a server what was true of its predictions"
DESCRIBED = """
TOKEN is the response parameter inferd_prediction_token, and LABEL the true class of each row: its
index, or a name of the model's labels, or - where it is not known. In a file each line is JSON:
{"token": "...", "label": 3}, or {"token": "...", "labels": [3, "cat", null]}.
"""
AT_ONCE = 200
"""Tokens of a file that are sent together."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = DESCRIBED
    parser.add_argument("token", nargs="?", metavar="TOKEN")
    parser.add_argument("labels", nargs="*", metavar="LABEL")
    parser.add_argument("--file", metavar="FILE", help="JSON lines, - for standard input")
    parser.add_argument("--json", action="store_true", help="print JSON")
    connect.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send labels and print what became of them; 1 if any token was refused."""
    if bool(arguments.file) == bool(arguments.token):
        raise InvalidInput("a token with its labels, or --file, was expected")
    if arguments.token and not arguments.labels:
        raise InvalidInput("a label is missing for each row of the answer")
    pairs = read(arguments.file) if arguments.file else given(arguments.token, arguments.labels)
    found: Counter[str] = Counter()
    rows = 0
    with connect.client(arguments) as client:
        while some := list(islice(pairs, AT_ONCE)):
            for outcome in client.feedback_many(some):
                found[outcome.reason] += 1
                rows += outcome.rows
                if outcome.reason:
                    print(f"inferd feedback: {outcome.message}", file=sys.stderr)
    refused = {reason: count for reason, count in sorted(found.items()) if reason}
    if arguments.json:
        print(json.dumps({"rows": rows, "tokens": found[""], "refused": refused}))
    else:
        lines = [("counted", str(found[""])), *((r, str(n)) for r, n in refused.items())]
        print(tables.render(("RESULT", "TOKENS"), lines))
    return 1 if refused else 0


def given(token: str, labels: Iterable[str]) -> Iterator[tuple[str, Labels]]:
    """Yield what stands on the command line."""
    yield token, [label_of(text) for text in labels]


def label_of(text: str) -> Label:
    """Return a label of the command line: whole numbers are indexes."""
    if text == "-":
        return None
    return int(text) if text.removeprefix("-").isdecimal() else text


def read(path: str) -> Iterator[tuple[str, Labels]]:
    """Yield what stands in a file of JSON lines.

    Raises:
        InvalidInput: a line is something else.
        OSError: the file cannot be read.
    """
    with sys.stdin if path == "-" else Path(path).open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _pair(line, f"{path}, line {number}")


def _pair(line: str, where: str) -> tuple[str, Labels]:
    try:
        told: Any = json.loads(line)
        token = told["token"]
        labels = told["labels"] if "labels" in told else told["label"]
    except (ValueError, TypeError, KeyError) as error:
        raise InvalidInput(f'{where}: {{"token": ..., "label": ...}} was expected') from error
    return token, labels
