"""Certificate authorities, which take a while to make."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from tests.server.security.certificates import Files


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="session")
def stranger() -> trustme.CA:
    """One that nobody trusts."""
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return Files(tmp_path, authority)
