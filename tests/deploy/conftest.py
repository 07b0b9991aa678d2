"""What the tests of the deployment share."""

from __future__ import annotations

import os

import pytest

from tests.deploy.helm import BINARY, Helm


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    """Helm, with nothing of the user's own."""
    if not BINARY.exists():
        pytest.skip("no helm: run `make tools`")
    home = tmp_path_factory.mktemp("helm")
    folders = {f"HELM_{kind}_HOME": str(home / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    return Helm(BINARY, {"PATH": os.environ["PATH"], "HOME": str(home), **folders})
