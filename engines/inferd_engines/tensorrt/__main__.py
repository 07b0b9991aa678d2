"""`python -m inferd_engines.tensorrt`: `inferd build` without the rest of the command."""

from __future__ import annotations

import argparse
import sys

from inferd_engines.tensorrt.command import HELP, configure, run

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="inferd build", description=HELP)
    configure(parser)
    sys.exit(run(parser.parse_args()))
