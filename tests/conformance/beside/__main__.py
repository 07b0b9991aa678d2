"""Imports two packages in the order that the command line gives, and infers with each.

Usage: python -m tests.conformance.beside ADDRESS FIRST SECOND; prints JSON, outputs by package.
"""

from __future__ import annotations

import importlib
import json
import sys

from . import calls


def main() -> None:
    """Import both before either calls, so that neither's messages come too late to collide."""
    address, *names = sys.argv[1:]
    for name in names:
        importlib.import_module(calls.MODULES[name])
    sys.stdout.write(json.dumps({name: calls.CALLS[name](address) for name in names}))


if __name__ == "__main__":
    main()
