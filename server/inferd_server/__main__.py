"""`python -m inferd_server` serves."""

import sys

from inferd_server.command import main

sys.exit(main())
