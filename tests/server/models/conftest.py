"""What the tests of the repository share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.models.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """Return an empty repository; at the end every engine must close."""
    made = Bench(tmp_path)
    yield made
    made.close()
