"""The flags of inferd bench."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any, TypeAlias

from inferd_client.bench.choice import AUTO, FAST, GRPC
from inferd_client.bench.plan import MAX_CONNECTIONS
from inferd_client.commands import connect
from inferd_client.inputs import assignment, shape_assignment

Add: TypeAlias = Callable[..., Any]

CONNECTIONS = f"of each process at most (default: {MAX_CONNECTIONS})"
CLIENT = "what sends: the fast client, grpc.aio, or the fast one where it can (default: auto)"

EPILOG = """
Every run is bounded: by --duration, by --requests, and each request by --timeout. With
--rate latency is counted from the moment a request was due, not from when a place was
free to send it. Inputs that are not given are random. See `inferd infer --help` for VALUE.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's flags."""
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL")
    connect.configure(parser)
    _load(parser.add_argument_group("load").add_argument)
    _request(parser.add_argument_group("request").add_argument)
    parser.add_argument("--json", metavar="FILE", help="also write JSON; - prints it instead")


def _load(add: Add) -> None:
    add("--concurrency", type=count, default=8, metavar="N", help="in flight (default: 8)")
    add("--rate", type=positive, metavar="R", help="requests a second, whatever the answers do")
    add("--duration", type=positive, default=10.0, metavar="S", help="seconds (default: 10)")
    add("--requests", type=count, metavar="N", help="stop after so many")
    add("--warmup", type=seconds, default=0.0, metavar="S", help="seconds before measuring")
    add("--processes", type=count, default=1, metavar="N", help="processes that send (default: 1)")
    add("--stream", action="store_true", help="use ModelStreamInfer, one for each in flight")
    add("--per-stream", type=count, default=1, metavar="N", help="in flight on each stream")
    add("--connections", type=count, default=MAX_CONNECTIONS, metavar="N", help=CONNECTIONS)
    add("--client", choices=(AUTO, FAST, GRPC), default=AUTO, help=CLIENT)
    add("--check", action="store_true", help="count answers unlike the first, and fail if any is")


def _request(add: Add) -> None:
    add("--version", default="", help="model version (default: the server's)")
    add("--batch", type=count, default=1, metavar="ROWS", help="rows of random inputs")
    add("--input", action="append", default=[], type=assignment, metavar="NAME=VALUE")
    add("--shape", action="append", default=[], type=shape_assignment, metavar="NAME=1,3,224,224")


def count(text: str) -> int:
    """Read an integer from 1; an argparse type."""
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected an integer from 1, got {text!r}")
    return int(text)


def seconds(text: str) -> float:
    """Read a finite number from 0; an argparse type."""
    value = float(text)
    if not (0 <= value < math.inf):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return value


def positive(text: str) -> float:
    """Read a finite number above 0; an argparse type."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("expected a number above 0")
    return value
