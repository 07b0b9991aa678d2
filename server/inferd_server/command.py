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

from inferd_engines.cores import usable_cores
from inferd_engines.onnx import open_onnx

from inferd_server import environment
from inferd_server.effects import heap_problem, listener_problem, probe_heap
from inferd_server.errors import StartupError
from inferd_server.explain import Facts, Setting, explain
from inferd_server.monitoring.logs import LogControl
from inferd_server.server import Server
from inferd_server.settings.model import Settings
from inferd_server.settings.sources import add_flags, fields, load_settings, origins, shown
from inferd_server.signals import StopSignals
from inferd_server.transport.choice import COMPLETION_QUEUE, Choice
from inferd_server.transport.listener import listener_wakeups
from inferd_server.transport.making import decide, make, private
from inferd_server.transport.options import TransportOptions, transport_options
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
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print every setting and where it came from, what serves and why; do not serve",
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
    if arguments.explain:
        print_explanation(arguments, settings)
        return 0
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
    options = transport_options(settings.listen)
    choice = decide(settings.listen.transport, options)
    if choice.reason:
        log.warning("another transport", extra={"serves": choice.name, "reason": choice.reason})
    for problem in without_effect(choice, options):
        log.warning("the environment has no effect", extra={"reason": problem})
    transport = make(choice.name, options, inline.turn)
    takes_turns = choice.name == COMPLETION_QUEUE
    return Server(settings, open_onnx, transport, logs, inline=inline if takes_turns else None)


def without_effect(choice: Choice, options: TransportOptions) -> list[str]:
    """Return what `environment` asked for in vain."""
    try:
        wakeups = listener_wakeups(make(choice.name, private(options)))
        listener = listener_problem(os.environ, wakeups)
    except (OSError, StartupError) as error:
        listener = f"whether gRPC handles sockets on threads of its own is unknown: {error}"
    problems = listener, heap_problem(os.environ, probe_heap())
    return [problem for problem in problems if problem]


def print_explanation(arguments: argparse.Namespace, settings: Settings) -> None:
    """Print what would serve, and why."""
    origin = origins(vars(arguments), os.environ)
    options = transport_options(settings.listen)
    choice = decide(settings.listen.transport, options)
    facts = Facts(
        settings=[
            Setting(name, shown(getattr(getattr(settings, section), name)), origin[name])
            for name, (section, _) in fields().items()
        ],
        environment=os.environ,
        wanted=environment.WANTED,
        transport=choice.name,
        reason=choice.reason,
        asked=settings.listen.transport,
        grpcio=version("grpcio"),
        problems=without_effect(choice, options),
        cores=usable_cores(),
        affinity=len(os.sched_getaffinity(0)),
    )
    print("\n".join(explain(facts)))


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
