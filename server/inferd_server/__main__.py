"""`python -m inferd_server` serves."""

import sys

from inferd_server.command import main

if __name__ == "__main__":
    sys.exit(main())
