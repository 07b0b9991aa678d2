"""`inferd serve`."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from inferd_engines.cores import usable_cores

from inferd_server import environment
from inferd_server.errors import StartupError
from inferd_server.monitoring.logs import LogControl
from inferd_server.security.opening import check_security
from inferd_server.settings.model import Settings
from inferd_server.settings.sources import add_flags, load_settings
from inferd_server.supervisor.policy import Arrangement, arrange

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
    arrangement = arranged(settings)
    if arguments.explain:
        from inferd_server.explaining import explanation

        print("\n".join(explanation(arguments, settings, arrangement)))
        return 0
    logs = LogControl(settings.log)
    logs.start()
    try:
        # Before any process starts that would find the same.
        check_security(settings)
        return serve(settings, logs, arrangement)
    except StartupError as error:
        log.error("cannot start", extra={"error": str(error)})
        return 1
    finally:
        logs.stop()


def arranged(settings: Settings) -> Arrangement:
    """Decide on how many processes serve, on this host."""
    engine = settings.engine
    # Whoever names a store of plans means a GPU.
    devices = (*engine.engine_providers, *(["TensorRT"] if engine.plan_store else []))
    cores = engine.cores or usable_cores()
    return arrange(engine.processes, settings.split.fronts, cores, devices)


def serve(settings: Settings, logs: LogControl, arrangement: Arrangement) -> int:
    """Serve in one process or in several; return the exit code.

    Imported only here, so that a supervisor never loads gRPC or an engine.

    Raises:
        StartupError: the server cannot start.
    """
    if arrangement.fronts:
        from inferd_server.supervisor.run import serve_split

        return serve_split(settings, logs, arrangement.fronts)
    from inferd_server import one_process

    return one_process.serve(settings, logs)


def main() -> int:
    """Run without the client's command line: `python -m inferd_server`."""
    parser = argparse.ArgumentParser("inferd serve")
    configure(parser)
    return run(parser.parse_args())
