"""The operations of `inferd models` on sealed folders."""

from __future__ import annotations

import argparse

from inferd_seal.commands import rotate, seal, verify


def configure(parsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the operations, each a parser with `run`.

    Args:
        parsers: of `inferd models`.
    """
    for name, module in (("rotate", rotate), ("seal", seal), ("verify", verify)):
        parser = parsers.add_parser(
            name, help=module.HELP, description=module.HELP, allow_abbrev=False
        )
        parser.set_defaults(parser=parser, run=module.run)
        module.configure(parser)
