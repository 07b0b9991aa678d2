"""A server that never learns what runs take, and so refuses and drops nobody for it."""

import sys

from inferd_server import command

if __name__ == "__main__":
    command.prepare()
    from inferd_server.batching.run_costs import RunCosts

    RunCosts.learn = lambda *_: None  # type: ignore[method-assign]
    sys.exit(command.main())
