"""`inferd serve`, with engines that fail."""

from __future__ import annotations

import argparse
import os
import sys

from inferd_engines.standard import Engines
from inferd_server import one_process
from inferd_server.monitoring.logs import LogControl
from inferd_server.settings.sources import add_flags, load_settings
from inferd_server.supervisor.run import serve_split

from tests.fakes.faulty import open_faulty

CHILD = "tests.server.supervisor.faulty_child"


def main() -> int:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    settings = load_settings(vars(parser.parse_args()), os.environ)
    logs = LogControl(settings.log)
    logs.start()
    if settings.engine.processes != "split":
        return one_process.serve(settings, logs, Engines(open_faulty, None))
    return serve_split(settings, logs, settings.split.fronts, CHILD)


if __name__ == "__main__":
    sys.exit(main())
