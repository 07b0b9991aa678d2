"""`inferd serve` on the command line: what is quick to import; the rest is in serve.py."""

from __future__ import annotations

import argparse

from inferd_server import environment, signals

HELP = "serve models over gRPC"


def prepare() -> None:
    """Start this very command anew, if its environment lacks anything; main thread only.

    Before anything slow is imported, which would be imported twice: it is half of a start.
    """
    signals.hold()
    environment.prepare()
    environment.collect_seldom()


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the flags: one for every setting."""
    from inferd_server.settings.sources import add_flags

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
    parser.usage = f"{parser.prog} [FILE.onnx] [--config FILE] [--SETTING VALUE ...]; --help: all"
    # It waits for signals itself, once it can end well.
    parser.set_defaults(holds_signals=True)
    parser.add_argument(
        "model",
        nargs="?",
        metavar="FILE.onnx",
        help="a single model to serve, or a folder of models: the same as --model-repository; or "
        "the folder or URL of a store",
    )
    add_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until told to stop; return the exit code."""
    from inferd_server import serve

    return serve.run(arguments)


def main() -> int:
    """Run without the client's command line: `python -m inferd_server`."""
    prepare()
    parser = argparse.ArgumentParser("inferd serve", allow_abbrev=False)
    configure(parser)
    return run(parser.parse_args())
