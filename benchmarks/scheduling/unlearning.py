"""A server that never learns what runs take, and so refuses and drops nobody for it."""

import sys

from inferd_server import environment, signals

if __name__ == "__main__":
    signals.hold()
    environment.prepare()
    from inferd_server.batching.run_costs import RunCosts
    from inferd_server.command import main

    RunCosts.learn = lambda *_: None  # type: ignore[method-assign]
    sys.exit(main())
