"""One server with real ONNX models for every test of this folder that only asks it things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import models
from tests.server.front.served import SERVED, YAML
from tests.server.serving import Running, running


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = models.repository(tmp_path_factory.mktemp("models"), SERVED, YAML)
    with running(folder, max_message_bytes=80 * 2**20) as server:
        yield server
