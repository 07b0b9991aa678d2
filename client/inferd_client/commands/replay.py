"""inferd replay: send a recording to a server and compare its answers with those recorded."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from inferd.recording import Recorded
from tqdm import tqdm

from inferd_client.client import Client
from inferd_client.commands import connect
from inferd_client.errors import InvalidInput
from inferd_client.replay.comparing import Limits
from inferd_client.replay.recording import Recording
from inferd_client.replay.report import Report, as_json, as_text
from inferd_client.replay.sending import Outcome, Outputs, Pace, Sender

HELP = "send a recording to a server and compare the answers"
ANY = "any"
"""The version that the server prefers."""
CONCURRENCY, LISTED = 8, 100


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = (
        "The exit code is 0 if at least one answer was compared and all are as recorded, else 1."
    )
    add = parser.add_argument
    add("recording", metavar="RECORDING", help="folder, URL or file that a server recorded to")
    add("--model", default="", help="send all to this model (default: the recorded one)")
    add(
        "--version",
        default="",
        help=f"send all to this version; {ANY}: the server's choice (default: the recorded one)",
    )
    add(
        "--concurrency",
        type=int,
        default=CONCURRENCY,
        metavar="N",
        help="requests in flight at most (default: %(default)s)",
    )
    add(
        "--speed",
        type=float,
        default=0.0,
        metavar="TIMES",
        help="the recorded pace, times this: 1 sends each when it came (default: as fast as "
        "they are answered)",
    )
    add("--rtol", type=float, help="for all floats, relative to the recorded element")
    add("--atol", type=float, help="for all floats, absolute")
    add(
        "--list",
        type=int,
        default=LISTED,
        metavar="N",
        help="that are shown of those that differ, and of those that fail (default: %(default)s)",
    )
    add("--json", nargs="?", const="-", metavar="FILE", help="write JSON to FILE, or print it")
    connect.configure(parser)


def run(arguments: argparse.Namespace) -> int:
    """Replay, report, and return 1 unless all answers are as recorded."""
    check(arguments)
    recording = Recording(arguments.recording)
    report = Report(Limits(arguments.rtol, arguments.atol), arguments.list)
    with connect.client(arguments) as client:
        replay(client, recording, report, arguments)
    paced = bool(arguments.speed)
    text = json.dumps(as_json(report, paced), indent=2)
    if arguments.json == "-":
        print(text)
    else:
        print(as_text(report, paced))
        if arguments.json:
            Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    return 0 if report.succeeded else 1


def check(arguments: argparse.Namespace) -> None:
    """Refuse numbers that cannot be meant.

    Raises:
        InvalidInput: one is.
    """
    if arguments.concurrency < 1:
        raise InvalidInput("--concurrency must be 1 or more")
    for name in ("speed", "rtol", "atol", "list"):
        value = getattr(arguments, name)
        # NaN is no number from 0 on, either.
        if value is not None and not value >= 0:
            raise InvalidInput(f"--{name} must be 0 or more")


def replay(
    client: Client, recording: Recording, report: Report, arguments: argparse.Namespace
) -> None:
    """Send all requests, and count what comes of them."""
    began = time.monotonic()
    pace = Pace(arguments.concurrency, arguments.speed, time.monotonic, time.sleep)
    hidden = not sys.stderr.isatty()
    with tqdm(total=recording.requests or None, disable=hidden, leave=False, unit="req") as bar:

        def ended(outcome: Outcome) -> None:
            report.add(outcome)
            bar.update()

        def send(request: Recorded) -> Outputs:
            return client.infer(
                arguments.model or request.model,
                inputs=request.inputs,
                version=version_of(arguments.version, request),
                outputs=[*request.outputs],
                id=request.id,
                parameters=request.parameters,
            )

        Sender(send, pace, ended).run(sendable(recording, report))
    report.elapsed = time.monotonic() - began


def version_of(asked: str, request: Recorded) -> str:
    """Return the version to send a request to; "" leaves it to the server."""
    return "" if asked == ANY else asked or request.version


def sendable(recording: Iterable[Recorded], report: Report) -> Iterator[tuple[int, Recorded]]:
    """Return the requests whose inputs were recorded as they were sent, and count the others.

    Each with its place in the recording, from 0.
    """
    for index, request in enumerate(recording):
        if request.masked_inputs:
            report.not_sent += 1
        else:
            yield index, request
