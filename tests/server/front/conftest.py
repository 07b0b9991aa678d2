"""Servers with real ONNX models for every test of this folder that only asks them things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import models
from tests.server.front.served import SERVED, YAML
from tests.server.serving import Running, running, running_split


@pytest.fixture(scope="session", params=["one process", "split"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(tmp_path_factory.mktemp("models"), SERVED, YAML)
    start = running if request.param == "one process" else running_split
    with start(folder, max_message_bytes=80 * 2**20) as server:
        yield server
