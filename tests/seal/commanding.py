"""`inferd models`, killed at the n-th line of the code that seals.

python -m tests.seal.commanding LINE OPERATION ...
"""

from __future__ import annotations

import sys

# All of it before the lines are counted.
import inferd_seal.commands
import inferd_seal.folder
from inferd_client.cli import main

from tests.killing import killed_at

__all__ = ["inferd_seal"]

if __name__ == "__main__":
    line, *words = sys.argv[1:]
    killed_at(int(line), "inferd_seal", lambda: main(["models", *words]))
