"""The flags by which every command of the client finds its server."""

from __future__ import annotations

import argparse
import os

from inferd_client.client import Client
from inferd_client.connection import DEFAULT_TIMEOUT


def configure(parser: argparse.ArgumentParser) -> None:
    """Add --url and --timeout."""
    parser.add_argument(
        "--url",
        default=os.environ.get("INFERD_URL", "127.0.0.1:8001"),
        metavar="HOST:PORT",
        help="where the server listens (default: %(default)s; INFERD_URL sets it)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long one call may take (default: %(default)g)",
    )


def client(arguments: argparse.Namespace) -> Client:
    """Return the client that those flags ask for."""
    return Client(arguments.url, timeout=arguments.timeout)
