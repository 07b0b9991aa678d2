"""`python -m inferd_client` is the `inferd` command."""

import sys

from inferd_client.cli import main

sys.exit(main())
