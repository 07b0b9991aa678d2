"""`python -m inferd` is the `inferd` command, which another package of the same install brings."""

import sys
from importlib.metadata import entry_points

(command,) = entry_points(group="console_scripts", name="inferd")
sys.exit(command.load()())
