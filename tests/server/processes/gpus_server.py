"""`inferd serve` with a worker for each of two GPUs, which are doubles: files say if they work."""

from __future__ import annotations

import argparse
import os
import sys

from inferd_engines.devices import Device
from inferd_server.monitoring.logs import LogControl
from inferd_server.processes.policy import Arrangement
from inferd_server.processes.run import serve_processes
from inferd_server.settings.sources import add_flags, load_settings

DEVICES = [Device(f"GPU-{name}", "a double", 1 << 30) for name in ("aaaa", "bbbb")]
CHILD = "tests.server.processes.gpus_child"


def main() -> int:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    settings = load_settings(vars(parser.parse_args()), os.environ)
    logs = LogControl(settings.log)
    logs.start()
    arrangement = Arrangement(settings.split.fronts, "a test")
    return serve_processes(settings, logs, arrangement, CHILD, lambda _: DEVICES)


if __name__ == "__main__":
    sys.exit(main())
