"""`python -m inferd_server` serves."""

import sys

from inferd_server import environment, signals

if __name__ == "__main__":
    signals.hold()
    environment.prepare()
    from inferd_server.command import main

    sys.exit(main())
