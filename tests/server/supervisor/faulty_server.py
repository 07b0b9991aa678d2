"""`inferd serve`, with engines that fail."""

from __future__ import annotations

import argparse
import os
import sys

from inferd_engines.standard import Engines
from inferd_server import one_process
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.sources import add_flags, load_settings
from inferd_server.supervisor.policy import Arrangement
from inferd_server.supervisor.run import serve_processes

from tests.fakes.faulty import open_faulty

CHILD = "tests.server.supervisor.faulty_child"


def main() -> int:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    settings = load_settings(vars(parser.parse_args()), os.environ)
    logs = LogControl(settings.log)
    logs.start()
    processes = {
        "split": Arrangement(settings.split.fronts, "a test"),
        "replicas": Arrangement(0, "a test", settings.engine.replicas),
    }
    arrangement = processes.get(settings.engine.processes)
    if arrangement is None:
        return one_process.serve(settings, logs, Engines(open_faulty, None))
    return serve_processes(settings, logs, arrangement, CHILD)


if __name__ == "__main__":
    sys.exit(main())
