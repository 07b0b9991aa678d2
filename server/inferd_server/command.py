"""`inferd serve`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from importlib.metadata import version
from typing import NoReturn

from inferd_engines.onnx import open_onnx

from inferd_server import environment
from inferd_server.errors import StartupError
from inferd_server.monitoring.logs import LogControl
from inferd_server.server import Server
from inferd_server.settings.model import ListenSettings, Settings
from inferd_server.settings.sources import add_flags, load_settings
from inferd_server.signals import StopSignals
from inferd_server.transport.aio import AioTransport
from inferd_server.transport.call import Transport
from inferd_server.transport.choice import AIO, choose
from inferd_server.transport.completion_queue import CompletionQueueTransport, core
from inferd_server.transport.options import transport_options
from inferd_server.transport.selftest import selftest
from inferd_server.worker.inline import InlineLoop

log = logging.getLogger(__name__)
HELP = "serve models over gRPC"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags: one for every setting."""
    parser.description = (
        "Serve every model of a repository over gRPC. Each setting is a flag, an environment "
        "variable (INFERD_GRPC_PORT for --grpc-port) and a name in the settings file (grpc_port); "
        "flags win over the environment, and that over the file."
    )
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; return the exit code."""
    environment.prepare()
    try:
        settings = load_settings(vars(arguments), os.environ)
    except StartupError as error:
        print(f"inferd serve: {error}", file=sys.stderr)
        return 2
    logs = LogControl(settings.log)
    logs.start()
    try:
        return serve(settings, logs)
    except StartupError as error:
        log.error("cannot start", extra={"error": str(error)})
        return 1
    finally:
        logs.stop()


def serve(settings: Settings, logs: LogControl) -> int:
    """Start, wait for a signal, drain.

    Raises:
        StartupError: the server cannot start.
    """
    signals = StopSignals()
    signals.install()
    server = build(settings, logs)
    port, metrics_port = server.start()
    where = {"host": settings.listen.host, "grpc_port": port, "metrics_port": metrics_port}
    log.info("listening", extra=where)
    # On a thread of its own, so that a signal ends a start that takes long.
    threading.Thread(target=server.load, name="load", daemon=True).start()
    signals.wait()
    ended = server.drain(signals.next())
    log.info("stopped")
    if not ended:
        leave(0)
    return 0


def build(settings: Settings, logs: LogControl) -> Server:
    """Put a server together with the engines and the transport of this host."""
    inline = InlineLoop(time.monotonic)
    transport = make_transport(settings.listen, inline)
    takes_turns = isinstance(transport, CompletionQueueTransport)
    return Server(settings, open_onnx, transport, logs, inline=inline if takes_turns else None)


def make_transport(listen: ListenSettings, inline: InlineLoop) -> Transport:
    """Make the transport that was asked for, or the other one, with a warning that says why."""
    options = transport_options(listen)
    choice = choose(
        listen.transport,
        version("grpcio"),
        core.TESTED,
        core.missing(),
        lambda: selftest(CompletionQueueTransport(options)),
    )
    if choice.reason:
        log.warning("another transport", extra={"serves": choice.name, "reason": choice.reason})
    if choice.name == AIO:
        return AioTransport(options)
    return CompletionQueueTransport(options, inline.turn)


def leave(code: int) -> NoReturn:
    """End the process now: Python's own way out aborts while a thread is inside an engine."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> int:
    """Run without the client's command line: `python -m inferd_server`."""
    parser = argparse.ArgumentParser("inferd serve")
    configure(parser)
    return run(parser.parse_args())
