"""What the tests of the deployment share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.deploy.helm import BINARY, Helm


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    """Helm, with nothing of the user's own."""
    if not BINARY.exists():
        pytest.skip("no helm: run `make tools`")
    folders = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    return Helm(BINARY, {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **folders})
