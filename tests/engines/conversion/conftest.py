"""A disk that is soon full, for the commands that write models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.small_disk import small_disk

SMALL_DISK = 4096


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of SMALL_DISK bytes."""
    with small_disk(tmp_path, SMALL_DISK) as place:
        yield place
