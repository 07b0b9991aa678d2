"""A model that is replaced between being looked up and being given a job: nothing is mixed up."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from inferd.oip.v2.inference_pb2 import ModelInferResponse
from inferd.tensors import Buffer
from inferd_server.cache.making import make_cache
from inferd_server.inference.cacheable import owner_of, owners
from inferd_server.inference.handler import Infer
from inferd_server.inference.infer_request import Telemetry
from inferd_server.inference.sampling import Sampling
from inferd_server.inference.shared_memory import RegionTable
from inferd_server.models.entries import ModelEntry
from inferd_server.models.loader import Loader
from inferd_server.models.repository import Repository
from inferd_server.models.version import Handle
from inferd_server.monitoring.bounded_log import BoundedLog
from inferd_server.monitoring.metrics import Metrics
from inferd_server.settings.model import BatchingSettings, CacheSettings, EngineSettings
from inferd_server.transport.call import Metadata

from tests.fakes.asking import FakeCall
from tests.fakes.engine import FakeEngine
from tests.fakes.signer import signer
from tests.server.models.bench import WITHIN, Engines
from tests.server.serving import arrays, infer_request, rows

CACHED = "response_cache: {}\n"
LOG = logging.getLogger(__name__)


class Replaced:
    """Models of which the first one found is of a moment ago."""

    def __init__(self, repository: Repository, first: Handle) -> None:
        self._repository = repository
        self._first: Handle | None = first

    def resolve(self, name: str, version: str) -> Handle:
        first, self._first = self._first, None
        return first or self._repository.resolve(name, version)

    def entries(self) -> list[ModelEntry]:
        return self._repository.entries()


class Waiting(FakeCall):
    """A call whose answer can be waited for."""

    def __init__(self, request: bytes) -> None:
        super().__init__(request)
        self._answered = threading.Event()

    def reply(self, parts: Sequence[Buffer], trailing: Metadata = ()) -> None:
        super().reply(parts, trailing)
        self._answered.set()

    def number(self) -> float:
        """Return the first element of the only answer."""
        assert self._answered.wait(WITHIN)
        assert isinstance(self.answer, bytes)
        return float(arrays(ModelInferResponse.FromString(self.answer))["OUTPUT0"][0, 0])


def multiplying(factor: int) -> FakeEngine:
    return FakeEngine(compute=lambda inputs: {"OUTPUT0": inputs["INPUT0"] * np.float32(factor)})


def save(folder: Path, content: bytes, yaml: str) -> None:
    (folder / "m/1").mkdir(parents=True, exist_ok=True)
    (folder / "m/1/model.onnx").write_bytes(content)
    (folder / "m/model.yaml").write_text(yaml)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """One model that doubles, and after a reload one that triples."""
    factors = iter((2, 3))
    engines = Engines(lambda: multiplying(next(factors)))
    settings = BatchingSettings(), EngineSettings()
    made = Repository(tmp_path, Loader(engines, *settings, Metrics(), time.monotonic), lambda: None)
    save(tmp_path, b"doubles", CACHED)
    made.load("m")
    yield made
    made.close(WITHIN)


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("yaml", [CACHED, ""])
def test_the_answer_is_the_new_models_and_nothing_is_kept_for_the_old_one(
    repository: Repository, tmp_path: Path, yaml: str, repeated: bool
) -> None:
    old = repository.resolve("m", "")
    cache = make_cache(CacheSettings(), time.monotonic, time.time)
    telemetry = Telemetry(
        Metrics(),
        time.monotonic,
        time.time,
        BoundedLog(LOG, time.monotonic),
    )
    regions = RegionTable()
    sampling = Sampling(None, 0.0, regions, time.monotonic, time.time, random.random)
    infer = Infer(Replaced(repository, old), regions, telemetry, cache, signer(), sampling)
    cache.retain({owner_of(old)})

    def ask(value: float) -> float:
        call = Waiting(infer_request("m", rows(value)).SerializeToString())
        infer(call)
        return call.number()

    if repeated:
        # So that the next one is recognised, and goes to the old model without a look-up.
        assert ask(100.0) == 200.0
    kept = cache.gauges()["inferd_cache_entries"]
    save(tmp_path, b"triples", yaml)
    repository.load("m")
    cache.retain({owner_of(old), *owners(repository.entries())})
    assert ask(1.0) == 3.0
    assert cache.gauges()["inferd_cache_entries"] == kept + bool(yaml)
    cache.retain({owner_of(old)})
    assert cache.gauges()["inferd_cache_entries"] == kept
    cache.close()
