"""A process of `faulty_server`: as `inferd_server.child`, with engines that fail."""

from __future__ import annotations

import sys

from inferd_engines.standard import Engines
from inferd_server.child import main

from tests.fakes.faulty import open_faulty

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], lambda _: Engines(open_faulty, None)))
