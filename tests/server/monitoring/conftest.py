"""What the tests of monitoring share."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from tests.server.monitoring.started import Logs


@pytest.fixture
def logs() -> Iterator[Logs]:
    """Return a log that is stopped at the end."""
    made = Logs(io.StringIO())
    yield made
    for control in made.controls:
        control.stop()
