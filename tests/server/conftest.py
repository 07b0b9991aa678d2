"""Servers with real ONNX models for every test of this folder that only asks them things."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from tests import models
from tests.server.inference.served import SERVED, YAML
from tests.server.serving import Running, running, running_replicas, running_split

STARTS = {"one process": running, "split": running_split, "replicas": running_replicas}


@pytest.fixture(scope="session")
def arranged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Running]]:
    """The server of an arrangement: each is started by the first who asks, and kept to the end."""
    folder = models.repository(tmp_path_factory.mktemp("models"), SERVED, YAML)
    with ExitStack() as stack:
        yield cache(
            lambda name: stack.enter_context(STARTS[name](folder, max_message_bytes=80 * 2**20))
        )


@pytest.fixture(params=list(STARTS))
def served(request: pytest.FixtureRequest, arranged: Callable[[str], Running]) -> Running:
    return arranged(request.param)
