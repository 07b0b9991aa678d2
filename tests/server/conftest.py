"""Servers with real ONNX models for every test of this folder that only asks them things."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import models
from tests.server.inference.served import SERVED, YAML
from tests.server.serving import Running, running, running_replicas, running_split

STARTS = {"one process": running, "split": running_split, "replicas": running_replicas}


@pytest.fixture(scope="session", params=list(STARTS))
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    folder = models.repository(tmp_path_factory.mktemp("models"), SERVED, YAML)
    with STARTS[request.param](folder, max_message_bytes=80 * 2**20) as server:
        yield server
