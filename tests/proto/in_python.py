"""A program for which protobuf runs in Python, as on platforms without a wheel of it."""

from __future__ import annotations

import os
import subprocess
import sys

CHECK = """
from google.protobuf.internal import api_implementation as runs
assert runs.Type() == 'python'
"""


def assert_succeeds(code: str) -> None:
    """Run a program in a process of its own, to its end."""
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}
    command = [sys.executable, "-c", CHECK + code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
