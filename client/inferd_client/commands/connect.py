"""The flags by which every command of the client finds its server, and shows who calls."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from inferd_client.client import Client
from inferd_client.connection import DEFAULT_TIMEOUT
from inferd_client.errors import InvalidInput
from inferd_client.security import Metadata, Tls, authorization

TOKEN = "INFERD_TOKEN"  # noqa: S105 the name of a variable


def configure(parser: argparse.ArgumentParser) -> None:
    """Add --url, --timeout, and the flags of TLS and tokens."""
    parser.add_argument(
        "--url",
        default=os.environ.get("INFERD_URL", "127.0.0.1:8001"),
        metavar="HOST:PORT",
        help="where the server listens (default: %(default)s; INFERD_URL sets it)",
    )
    configure_calls(parser)


def configure_calls(parser: argparse.ArgumentParser) -> None:
    """Add --timeout, and the flags of TLS and tokens."""
    parser.add_argument(
        "--timeout",
        type=float,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="how long one call may take (default: %(default)g)",
    )
    add = parser.add_argument_group("security").add_argument
    add("--tls", action="store_true", help="speak TLS; the four below do, too")
    add("--tls-ca", default="", metavar="FILE", help="PEM of the authorities to trust")
    add("--tls-certificate", default="", metavar="FILE", help="PEM to show to the server")
    add("--tls-private-key", default="", metavar="FILE", help="PEM of its key")
    add("--tls-server-name", default="", metavar="NAME", help="expected in place of the host")
    add("--token-file", metavar="FILE", help=f"holds a token; {TOKEN} may hold one instead")
    add("--token-in-the-clear", action="store_true", help="send it to others without TLS")


def client(arguments: argparse.Namespace) -> Client:
    """Return the client that those flags ask for.

    Raises:
        InvalidInput: they contradict each other, or the token would travel in the clear.
        OSError: a file cannot be read.
    """
    try:
        return Client(
            arguments.url,
            timeout=arguments.timeout,
            tls=tls(arguments),
            token=token(arguments),
            token_in_the_clear=arguments.token_in_the_clear,
        )
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def secured(arguments: argparse.Namespace) -> bool:
    """Tell whether those flags ask for more than a plain connection."""
    return tls(arguments) is not None or token(arguments) is not None


def shown(arguments: argparse.Namespace) -> Metadata:
    """Return the metadata with which every call shows who makes it."""
    clear = arguments.token_in_the_clear
    return authorization(token(arguments), arguments.url, tls(arguments), in_the_clear=clear)


def tls(arguments: argparse.Namespace) -> Tls | None:
    """Return the TLS that those flags ask for; None for plaintext."""
    own = arguments.tls_certificate, arguments.tls_private_key
    given = (arguments.tls_ca, *own, arguments.tls_server_name)
    return Tls.from_files(*given) if arguments.tls or any(given) else None


def token(arguments: argparse.Namespace) -> str | None:
    """Return the token of the file or the environment: the command line is there for all to see."""
    if arguments.token_file:
        return Path(arguments.token_file).read_text(encoding="ascii").strip()
    return os.environ.get(TOKEN) or None
